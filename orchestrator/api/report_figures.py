"""The figures of a report: which curves are drawn, from which numbers of its runs."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from plotly.graph_objects import Figure

from orchestrator.api.report_lines import Book, Read, eval_loss, grad_norm, short
from orchestrator.figures import style
from orchestrator.figures.curves import Across, Line, Mark, draw
from orchestrator.figures.loads import Panel, heat_map
from orchestrator.protocol.report import Routing
from orchestrator.services.views_report import ReportView, RunReport

NATS = "nats per token"
MOVED = ("promote", "decline", "stop", "fail")


@dataclass(frozen=True)
class Drawn:
    """One figure of the page. `key` names its file when it is exported."""

    key: str
    section: str
    title: str
    figure: Figure
    note: str = ""


def draw_report(report: ReportView) -> list[Drawn]:
    """Every figure that there is something to draw for, in the order of the page."""
    book = Book(report)
    if not book.measured:
        return []
    return [*_learning(book), *_routing(book), *_efficiency(book), *_stability(book)]


def _learning(book: Book) -> list[Drawn]:
    time = Across("time", "seconds of training")
    curves = draw(
        book.lines(book.measured, eval_loss),
        [book.steps, book.tokens(), time],
        _decisions(book),
        y_title=NATS,
        height=500,
    )
    note = "Marks are decisions that moved a run; point at one for its sentence."
    drawn = [Drawn("learning-curves", "learning", "Eval loss", curves, note)]
    gaps = _gaps(book)
    if gaps:
        title, unit = "Gap to the control at the same step", "gap (nats)"
        figure = draw(gaps, [book.steps], y_title=unit, zero=True)
        note = "Below the line is better than the control."
        if len(book.seeds) > 1:
            note += " Means over seeds; bars are 95% confidence intervals."
        drawn.append(Drawn("gaps", "learning", title, figure, note))
    return drawn


def _decisions(book: Book) -> list[Mark]:
    runs = {run.id: run for run in book.measured}
    marks = []
    for d in book.report.decisions:
        if d.kind in MOVED and (run := runs.get(d.run_id)) is not None:
            text = f"{book.name(run)}: {d.kind} ({d.reason}) at step {d.step:,}<br>{_folded(d.text)}"
            marks.append(book.mark(run, d.kind, d.step, eval_loss, text))
    return [mark for mark in marks if mark is not None]


def _gaps(book: Book) -> list[Line]:
    lines = []
    for variant in book.report.compare.variants:
        points = [(p.step, p.gap) for p in variant.points if p.gap is not None]
        if variant.is_control or not points:
            continue
        reach = [(gap.high - gap.mean if gap.high is not None else 0.0) for _, gap in points]
        lines.append(
            Line(
                name=variant.variant,
                stroke=style.stroke(book.colours[variant.variant], 0, is_control=False),
                x={"steps": [step for step, _ in points]},
                y=[short(gap.mean) for _, gap in points],
                error=[(short(r) or 0.0, short(r) or 0.0) for r in reach] if any(reach) else None,
            )
        )
    return lines


def _routing(book: Book) -> list[Drawn]:
    if not book.moe:
        return []
    reads: list[tuple[str, str, Read, str]] = [
        ("entropy", "Entropy of the loads, mean over layers", _of(lambda r: r.entropy), "H / ln E"),
        ("worst-entropy", "Entropy, worst layer", _of(lambda r: r.entropy_worst_layer), "H / ln E"),
        ("largest-load", "Largest load", _of(lambda r: r.load_max * r.num_experts), "of the fair share"),
        (
            "smallest-load",
            "Smallest load",
            _of(lambda r: r.load_min * r.num_experts),
            "of the fair share",
        ),
        ("dead-experts", "Dead experts, worst layer", _of(lambda r: r.dead_experts), "experts"),
        ("aux-loss", "Balance loss", lambda e: e.aux_loss, "as the config defines it"),
    ]
    drawn = [
        Drawn(key, "routing", title, draw(lines, [book.steps], y_title=unit, height=340))
        for key, title, read, unit in reads
        if (lines := book.lines(book.moe, read))
    ]
    panels = [panel for run in book.moe if (panel := _panel(book, run)) is not None]
    if panels:
        note = "At the last evaluation of each run. 1 is an even share, 0 an expert that gets nothing."
        drawn.append(Drawn("loads", "routing", "Load of each expert by layer", heat_map(panels), note))
    return drawn


def _panel(book: Book, run: RunReport) -> Panel | None:
    last = next((e for e in reversed(run.evaluations) if e.routing and e.routing.layer_loads), None)
    if last is None or last.routing is None:
        return None
    loads = [[round(load * len(layer), 4) for load in layer] for layer in last.routing.layer_loads if layer]
    return Panel(f"{book.name(run)}, step {last.step:,}", loads) if loads else None


def _efficiency(book: Book) -> list[Drawn]:
    flops = Across("FLOPs", "training FLOPs (3 forward passes for each token)", is_log=True)
    time = Across("time", "seconds of training", is_log=True)
    loss = draw(book.lines(book.measured, eval_loss), [flops, time], y_title=NATS)
    speed = draw(book.lines(book.measured, lambda e: e.tokens_per_second), [book.steps], y_title="tokens/s")
    return [
        Drawn("loss-by-cost", "efficiency", "Eval loss against what it cost", loss),
        Drawn("speed", "efficiency", "Training speed", speed),
    ]


def _stability(book: Book) -> list[Drawn]:
    lines = book.lines(book.measured, grad_norm)
    marks = [mark for run in book.measured for mark in (*_nans(book, run), *_restarts(book, run))]
    figure = draw(lines, [book.steps], marks, y_title="norm before clipping", y_is_log=True)
    return [Drawn("grad-norm", "stability", "Gradient norm", figure)]


def _nans(book: Book, run: RunReport) -> list[Mark]:
    marks, before = [], 0
    for e in run.evaluations:
        if e.nan_events > before:
            text = f"{book.name(run)}: {e.nan_events - before} steps not finite up to step {e.step:,}"
            marks.append(book.mark(run, "NaN", e.step, grad_norm, text))
        before = e.nan_events
    return [mark for mark in marks if mark is not None]


def _restarts(book: Book, run: RunReport) -> list[Mark]:
    marks = []
    for before, attempt in pairwise(run.attempt_list):
        if attempt.resumed_from_step is not None:
            why = f" after attempt {before.number} ended ({before.reason or 'unknown'})"
            text = f"{book.name(run)}: attempt {attempt.number} from step {attempt.resumed_from_step:,}{why}"
            marks.append(book.mark(run, "new attempt", attempt.resumed_from_step, grad_norm, text))
    return [mark for mark in marks if mark is not None]


def _of(read: Callable[[Routing], float]) -> Read:
    return lambda e: None if e.routing is None else read(e.routing)


def _folded(text: str, width: int = 80) -> str:
    """The words in lines for a hover label, as text: Plotly reads a little HTML."""
    lines = [""]
    for word in text.replace("&", "&amp;").replace("<", "&lt;").split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += f"{word} "
    return "<br>".join(line.strip() for line in lines)
