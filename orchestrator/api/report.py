"""The report of an experiment as one self-contained page."""

import base64
import gzip
import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup
from plotly.io import to_html

from orchestrator.api import report_words as words
from orchestrator.api.report_figures import MOVED, Drawn, draw_report
from orchestrator.services.views import DecisionView
from orchestrator.services.views_compare import VariantCompare, VariantPoint
from orchestrator.services.views_report import ReportView, RunReport

MOST_COLUMNS = 40
SECTIONS = (
    ("learning", "Learning curves"),
    ("routing", "Routing of the mixtures of experts"),
    ("efficiency", "Efficiency"),
    ("stability", "Stability"),
)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("orchestrator.api"), autoescape=select_autoescape(), trim_blocks=True
    )
    shown = (words.number, words.count, words.percent, words.interval, words.seconds, words.when)
    environment.filters |= {word.__name__: word for word in shown}
    environment.globals |= {"count": words.count, "short": words.short, "memory": words.memory}
    return environment


def report_html(report: ReportView) -> str:
    """The page: plan, verdicts, figures, every decision with its evidence, how to run it again."""
    moved = [d for d in report.decisions if d.kind in MOVED]
    others = [d for d in report.decisions if d.kind not in MOVED]
    several = len({run.seed for run in report.runs}) > 1
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            experiment=report.experiment,
            several=several,
            sections=_sections(draw_report(report)),
            gates=[(stage.name, stage.steps) for stage in report.stages],
            at_gates=_at_steps(report, [stage.steps for stage in report.stages]),
            evaluation_steps=(steps := evaluation_steps(report)),
            at_evaluations=_at_steps(report, steps),
            moved=moved,
            others=_by_run(report.runs, others),
            folded=_packed([*others, *report.shadow_decisions]),
            machines=words.machines(report.runs),
            commands=words.commands(report),
        )
    )


def _sections(drawn: Sequence[Drawn]) -> list[tuple[str, str, list[tuple[Drawn, Markup]]]]:
    """(key, title, its figures) of each section that has one; the script of Plotly goes with the first."""
    pages = [(figure, _figure(figure, first=place == 0)) for place, figure in enumerate(drawn)]
    found = [(key, title, [(d, page) for d, page in pages if d.section == key]) for key, title in SECTIONS]
    return [section for section in found if section[2]]


def _figure(drawn: Drawn, *, first: bool) -> Markup:
    page = to_html(
        drawn.figure,
        full_html=False,
        include_plotlyjs=first,
        div_id=f"figure-{drawn.key}",
        config={"displaylogo": False, "responsive": True},
    )
    return Markup(page)  # noqa: S704 - made by Plotly from our own numbers, which escapes what it is given


def evaluation_steps(report: ReportView, most: int = MOST_COLUMNS) -> list[int]:
    """The steps with an evaluation, thinned evenly to about `most`; ends of stages are always kept."""
    steps = sorted({p.step for variant in report.compare.variants for p in variant.points if p.step > 0})
    if len(steps) <= most:
        return steps
    every = -(-len(steps) // most)
    gates = {stage.steps for stage in report.stages}
    return [step for place, step in enumerate(steps) if step in gates or (place + 1) % every == 0]


def _at_steps(
    report: ReportView, steps: Sequence[int]
) -> list[tuple[VariantCompare, list[VariantPoint | None]]]:
    """Each variant with its point at each of the steps, None where it did not come so far."""
    table = []
    for variant in report.compare.variants:
        by_step = {point.step: point for point in variant.points}
        table.append((variant, [by_step.get(step) for step in steps]))
    return table


def _by_run(
    runs: Sequence[RunReport], decisions: Sequence[DecisionView]
) -> list[tuple[RunReport, list[DecisionView]]]:
    found = [(run, [d for d in decisions if d.run_id == run.id]) for run in runs]
    return [(run, chosen) for run, chosen in found if chosen]


def _packed(decisions: Sequence[DecisionView]) -> str:
    """Criteria and evidence by decision, for the page's script: JSON, gzipped, base64.

    There may be thousands, each a few kB; the script unpacks them when the first is unfolded.
    """
    found: dict[str, Any] = {
        d.id: d.model_dump(mode="json", include={"criteria", "evidence"}) for d in decisions
    }
    packed = gzip.compress(json.dumps(found, separators=(",", ":")).encode(), compresslevel=6, mtime=0)
    return base64.b64encode(packed).decode()
