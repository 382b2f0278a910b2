"""The report of an experiment as one self-contained page."""

import math
from functools import cache

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup
from plotly.graph_objects import Figure
from plotly.io import to_html

from orchestrator import figures
from orchestrator.services import views, views_compare, views_report

UNIT = "nats per token"
MARKED = frozenset({"promote", "decline", "stop", "fail"})


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("orchestrator.api"), autoescape=select_autoescape(), trim_blocks=True
    )
    environment.filters["number"] = _number
    environment.filters["signed"] = lambda value: "–" if value is None else f"{value:+.3f}"
    environment.filters["count"] = lambda value: f"{value:,}"
    return environment


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def report_html(report: views_report.ReportView, compared: views_compare.CompareView) -> str:
    """The page: curves, gaps at matched steps, every decision with its criteria, the spec."""
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            experiment=report.experiment,
            figures=_figures(report, compared),
            gaps=_gap_table(report, compared),
            decisions=[d for d in report.decisions if d.kind in MARKED],
            others=sum(d.kind not in MARKED for d in report.decisions),
        )
    )


def _figures(
    report: views_report.ReportView, compared: views_compare.CompareView
) -> list[tuple[str, Markup]]:
    """(title, HTML) of each figure; the script of Plotly goes with the first."""
    gates = [(stage.name, stage.steps) for stage in report.stages]
    drawn = [
        ("Eval loss", figures.learning_curves(_losses(report), gates, _marks(report), y_title=UNIT)),
        ("Gap to the control", figures.gap_curves(_gaps(compared), gates)),
    ]
    if any(run.last_evaluation and run.last_evaluation.routing for run in report.runs):
        title = "normalised entropy"
        drawn.append(("Routing entropy", figures.learning_curves(_entropy(report), gates, (), y_title=title)))
    pages = [_page(figure, first=i == 0) for i, (_, figure) in enumerate(drawn)]
    return [(name, Markup(page)) for (name, _), page in zip(drawn, pages, strict=True)]  # noqa: S704 - our own


def _page(figure: Figure, *, first: bool) -> str:
    return str(
        to_html(
            figure, full_html=False, include_plotlyjs=first, config={"displaylogo": False, "responsive": True}
        )
    )


def _label(run: views.RunView) -> str:
    return run.variant if run.seed == 0 else f"{run.variant} seed {run.seed}"


def _losses(report: views_report.ReportView) -> list[figures.Line]:
    return [
        figures.Line(
            _label(run),
            run.variant,
            run.is_control,
            [e.step for e in run.evaluations],
            [e.eval_loss if math.isfinite(e.eval_loss) else None for e in run.evaluations],
        )
        for run in report.runs
    ]


def _entropy(report: views_report.ReportView) -> list[figures.Line]:
    lines = []
    for run in report.runs:
        measured = [(e.step, e.routing.entropy) for e in run.evaluations if e.routing is not None]
        lines.append(
            figures.Line(
                _label(run), run.variant, run.is_control, [x for x, _ in measured], [y for _, y in measured]
            )
        )
    return lines


def _gaps(compared: views_compare.CompareView) -> list[figures.Line]:
    return [
        figures.Line(
            row.variant if row.seed == 0 else f"{row.variant} seed {row.seed}",
            row.variant,
            False,
            [point.at for point in row.points],
            [point.gap for point in row.points],
        )
        for row in compared.rows
        if not row.is_control
    ]


def _marks(report: views_report.ReportView) -> list[figures.Mark]:
    """The decisions that moved a run, each on its run's curve."""
    losses = {run.id: {e.step: e.eval_loss for e in run.evaluations} for run in report.runs}
    marks = []
    for decision in report.decisions:
        y = losses[decision.run_id].get(decision.step)
        if decision.kind in MARKED and y is not None and math.isfinite(y):
            text = f"{decision.variant}: {decision.kind} ({decision.reason}) at step {decision.step}"
            marks.append(figures.Mark(decision.kind, decision.step, y, text))
    return marks


def _gap_table(
    report: views_report.ReportView, compared: views_compare.CompareView
) -> list[tuple[views_compare.CompareRow, list[views_compare.ComparePoint | None]]]:
    """Each run with its point at the end of each stage, None where it did not come so far."""
    steps = [stage.steps for stage in report.stages]
    table = []
    for row in compared.rows:
        by_step = {point.at: point for point in row.points}
        table.append((row, [by_step.get(step) for step in steps]))
    return table
