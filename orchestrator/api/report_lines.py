"""The curves of a report's runs, drawn alike in every figure: names, colours, axes."""

import math
from collections.abc import Callable, Sequence

from orchestrator.figures import style
from orchestrator.figures.curves import Across, Line, Mark, Number
from orchestrator.services.views import EvaluationView
from orchestrator.services.views_report import ReportView, RunReport

TRAINING_PASSES = 3
"""Forward and backward in forward passes: Chowdhery et al. 2022, appendix B."""

Read = Callable[[EvaluationView], Number]


class Book:
    """The lines of a report, drawn alike in every figure."""

    def __init__(self, report: ReportView) -> None:
        self.report = report
        self.measured = [run for run in report.runs if run.evaluations]
        self.moe = [run for run in self.measured if any(e.routing for e in run.evaluations)]
        names = list(dict.fromkeys(run.variant for run in report.runs))
        self.colours = style.colours(names, report.experiment.control)
        self.seeds = sorted({run.seed for run in report.runs})
        self.steps = Across("steps", "step", gates=[(s.name, s.steps) for s in report.stages])

    def name(self, run: RunReport) -> str:
        """The variant, with its seed where there are several, as the command line shows it."""
        name = f"{run.variant}/{run.seed}" if len(self.seeds) > 1 else run.variant
        return f"{name} (control)" if run.is_control else name

    def stroke(self, run: RunReport) -> style.Stroke:
        place = self.seeds.index(run.seed)
        return style.stroke(self.colours[run.variant], place, is_control=run.is_control)

    def line(self, run: RunReport, read: Read, name: str | None = None) -> Line:
        kept = [e for e in run.evaluations if e.step > 0]
        return Line(
            name=name or self.name(run),
            stroke=self.stroke(run),
            x={
                "steps": [e.step for e in kept],
                "tokens": [e.tokens for e in kept],
                "time": [short(e.wall_seconds) for e in kept],
                "FLOPs": [training_flops(run, e) for e in kept],
            },
            y=[short(read(e)) for e in kept],
        )

    def lines(self, runs: Sequence[RunReport], read: Read) -> list[Line]:
        """One line for each run that has a number to show."""
        drawn = [self.line(run, read) for run in runs]
        return [line for line in drawn if any(y is not None for y in line.y)]

    def mark(self, run: RunReport, kind: str, step: int, read: Read, text: str) -> Mark | None:
        """A mark on the run's curve at the evaluation at `step`, or the first after it; None past its end."""
        e = next((e for e in run.evaluations if e.step >= max(1, step)), None)
        y = None if e is None else short(read(e))
        if e is None or y is None:
            return None
        x = {
            "steps": e.step,
            "tokens": e.tokens,
            "time": short(e.wall_seconds),
            "FLOPs": training_flops(run, e),
        }
        return Mark(kind, x, y, text)

    def tokens(self) -> Across:
        """Gates stand at tokens too where every run has the same number of them in a step."""
        per_step = {run.identity.tokens_per_step for run in self.measured if run.identity}
        gates = [(s.name, s.steps * next(iter(per_step))) for s in self.report.stages]
        return Across("tokens", "training tokens", gates=gates if len(per_step) == 1 else ())


def training_flops(run: RunReport, e: EvaluationView) -> float:
    """What the run has cost up to an evaluation, without its evaluations."""
    return TRAINING_PASSES * run.flops_per_token * e.tokens


def eval_loss(e: EvaluationView) -> float:
    return e.eval_loss


def grad_norm(e: EvaluationView) -> float | None:
    """None where a logarithm has none."""
    return e.grad_norm if e.grad_norm > 0 else None


def short(value: Number) -> Number:
    """Six significant digits, which no screen shows; None for what cannot be drawn."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None
