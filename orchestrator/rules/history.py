"""Recorded curves as the backtest replays them: one horizon, one grid of evaluations, a known final loss."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from orchestrator.domain.curves import Curve, StageView, loss_at
from orchestrator.domain.decisions import PromoteRule
from orchestrator.protocol.report import Evaluation, Identity


@dataclass(frozen=True)
class Replay:
    """The plan that every set is run through: evaluations, gates, and what each gate lets through."""

    every: int
    stages: tuple[StageView, ...]
    """Ascending; the last one's step is the horizon."""
    promote: tuple[PromoteRule, ...]
    """For each stage the rule of its gate; the last stage has none that is asked."""

    @property
    def horizon(self) -> int:
        """The last stage's step: the full budget of one run."""
        return self.stages[-1].steps

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Every step with an evaluation: the multiples of `every`, and the gates."""
        gates = {stage.steps for stage in self.stages}
        return tuple(sorted({*range(self.every, self.horizon + 1, self.every), *gates}))

    def stage_at(self, step: int) -> StageView:
        """The stage in which a run has its evaluation of `step`."""
        return next(stage for stage in self.stages if step <= stage.steps)


@dataclass(frozen=True)
class Recorded:
    """One run that was trained once: what any policy may see of it, and where the recording ends."""

    config: str
    run: str
    curve: Curve
    """On the replay's grid, never the control's: whether it is one depends on the set."""
    seconds_per_step: float | None = None
    """Of one slot; None where it is not known."""

    @property
    def end(self) -> int:
        """The last step that is recorded; 0 without an evaluation."""
        return self.curve.steps[-1] if self.curve.steps else 0

    def final(self, horizon: int) -> float | None:
        """Eval loss in nats at the horizon; infinite for one that broke; None where it is not recorded."""
        if not self.curve.evaluations:
            return None
        last = self.curve.evaluations[-1].eval_loss
        if not math.isfinite(last):
            return math.inf
        return last if self.end == horizon else None


def stages_of(steps: Sequence[int], names: Sequence[str] = ()) -> tuple[StageView, ...]:
    """Stages that end at these steps, called by their names or by their steps."""
    called = list(names) or [str(step) for step in steps]
    last = len(steps) - 1
    return tuple(
        StageView(name, step, is_last=i == last, begins=steps[i - 1] if i else 0)
        for i, (name, step) in enumerate(zip(called, steps, strict=True))
    )


def on_grid(curve: Curve, steps: Iterable[int], ratio: float = 2.0) -> Curve:
    """The curve with an evaluation at each of `steps` that its recording covers, and at no other.

    A loss that was not measured there is interpolated log-log between its neighbours, as a comparison
    would (`domain.curves.loss_at`); a recording without routing alone can be, since routing cannot. Where
    the neighbours are too far apart there is none, and nothing is put past the end.
    """
    own = {evaluation.step: evaluation for evaluation in curve.evaluations}
    kept = [own[step] if step in own else _between(curve, step, ratio) for step in steps]
    return replace(curve, evaluations=tuple(evaluation for evaluation in kept if evaluation is not None))


def _between(curve: Curve, step: int, ratio: float) -> Evaluation | None:
    found = None if curve.most_experts is not None else loss_at(curve, "step", step, ratio)
    return None if found is None else bare_evaluation(step, found[0])


def moved_to_horizon(curve: Curve, recorded_horizon: int, horizon: int, nats_per_step: float) -> Curve:
    """The curve as a run of `horizon` steps would have ended, at a rate of exchange of nats against steps.

    Its last loss, `nats_per_step` higher for each step that its own horizon is longer, stands at `horizon`;
    what it measured later than that is left out. The rate is the caller's: that of a family of runs whose
    final loss is known as a function of the horizon.
    """
    last = curve.evaluations[-1]
    final = last.eval_loss + nats_per_step * (recorded_horizon - horizon)
    before = tuple(e for e in curve.evaluations if e.step < horizon and e.step <= recorded_horizon)
    return replace(curve, evaluations=(*before, bare_evaluation(horizon, final)))


def bare_evaluation(step: int, loss: float) -> Evaluation:
    """An evaluation of which the loss alone is known."""
    return Evaluation(
        step=step,
        tokens=step,
        eval_loss=loss,
        perplexity=math.exp(loss) if loss < 700 else math.inf,
        train_loss=loss,
        learning_rate=0.0,
        grad_norm=0.0,
        tokens_per_second=0.0,
        wall_seconds=0.0,
    )


def bare_curve(index: int, config: str, points: Iterable[tuple[int, float]], horizon: int) -> Curve:
    """A curve of which steps and losses alone are known, comparable with every other of the same horizon."""
    return Curve(
        run_id=index,
        variant=config,
        seed=0,
        is_control=False,
        identity=bare_identity(horizon),
        evaluations=tuple(bare_evaluation(step, loss) for step, loss in points),
    )


def bare_identity(horizon: int) -> Identity:
    """What is said of curves that come without an identity: that they are of one kind and one size."""
    return Identity(
        evaluation_set="as posted",
        tokenizer="as posted",
        schedule_family="as posted",
        horizon_step=horizon,
        tokens_per_step=1,
        parameters_total=0,
        parameters_active=0,
        flops_per_token=0.0,
        device="as posted",
    )
