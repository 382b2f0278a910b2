"""A run's curve: its evaluations from step 0 on, over all attempts, and what is derived from them."""

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from operator import attrgetter, itemgetter
from typing import Literal, NamedTuple

from orchestrator.protocol.report import Evaluation, Identity

Axis = Literal["step", "tokens"]

# A gate asks hundreds of curves for each of these: an `attrgetter` takes half the time of a comprehension.
_STEP, _LOSS, _ROUTING = attrgetter("step"), attrgetter("eval_loss"), attrgetter("routing")
_BALANCE = attrgetter("aux_loss", "aux_coef")


@dataclass(frozen=True)
class Curve:
    """One run as the rules see it. Evaluations ascend by step, one for each; superseded ones are left out."""

    run_id: int
    variant: str
    seed: int
    is_control: bool
    identity: Identity | None
    evaluations: tuple[Evaluation, ...] = ()
    train_loss: tuple[tuple[int, float], ...] = ()
    """(step, training loss) between evaluations, ascending."""
    restarts: tuple[int, ...] = ()
    """The step from which each attempt after the first went on, where the one before had broken."""
    unrecorded: tuple[str, ...] = ()
    """Of a reference without an identity: what nobody recorded, in words."""

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """The step of each evaluation: what is searched by bisection."""
        return tuple(map(_STEP, self.evaluations))

    @cached_property
    def best(self) -> tuple[float, ...]:
        """The lowest finite eval loss of training up to each evaluation; infinite until there is one."""
        untrained = bisect_right(self.steps, 0)
        losses = list(map(_LOSS, self.evaluations))
        if untrained or not all(map(math.isfinite, losses)):
            losses = [
                loss if i >= untrained and math.isfinite(loss) else math.inf for i, loss in enumerate(losses)
            ]
        return tuple(accumulate(losses, min))

    @cached_property
    def most_experts(self) -> int | None:
        """The largest number of experts that an evaluation's routing is of; None where none came with one."""
        known = filter(None, map(_ROUTING, self.evaluations))
        return max((routing.num_experts for routing in known), default=None)

    @cached_property
    def has_balance_loss(self) -> bool:
        """Whether an evaluation came with a balance loss or its coefficient."""
        return bool(set(map(_BALANCE, self.evaluations)) - {(None, None)})


@dataclass(frozen=True)
class StageView:
    """One stage as the rules see it: its name, the step of its gate, and whether a stage follows."""

    name: str
    steps: int
    is_last: bool
    points: tuple[int, ...] = ()
    """Steps before its end at which runs wait for each other, since the policy compares them there."""
    begins: int = 0
    """The step of the gate before: evaluations up to it are an earlier stage's."""


class Match(NamedTuple):
    """Two losses at the same budget: one evaluation of the subject, and the other curve's loss there."""

    step: int
    tokens: int
    axis: Axis
    loss: float
    other_loss: float
    interpolated: bool

    @property
    def gap(self) -> float:
        """Nats per token that the subject is above the other; a lead is negative."""
        return self.loss - self.other_loss


@dataclass(frozen=True)
class Unmatched:
    """Why two curves have no losses to compare: not sound at all, or only not there yet."""

    reason: str
    invalid: bool


def trained_evaluations(curve: Curve) -> tuple[Evaluation, ...]:
    """Evaluations after at least one step: one at step 0 says nothing about training and is never counted."""
    return curve.evaluations[bisect_right(curve.steps, 0) :]


def upto(curve: Curve, step: int) -> Curve:
    """The curve as it was known at `step`: nothing after it can move a decision made there."""
    known = bisect_right(curve.steps, step)
    later = [*curve.train_loss[-1:], *((restart,) for restart in curve.restarts)]
    if known == len(curve.steps) and all(point[0] <= step for point in later):
        return curve  # with what was worked out on it
    return Curve(
        run_id=curve.run_id,
        variant=curve.variant,
        seed=curve.seed,
        is_control=curve.is_control,
        identity=curve.identity,
        evaluations=curve.evaluations[:known],
        train_loss=curve.train_loss[: bisect_right(curve.train_loss, step, key=itemgetter(0))],
        restarts=tuple(restart for restart in curve.restarts if restart <= step),
        unrecorded=curve.unrecorded,
    )


def evaluation_at(curve: Curve, step: int) -> Evaluation | None:
    """The evaluation at exactly `step`."""
    place = bisect_left(curve.steps, step)
    return curve.evaluations[place] if curve.steps[place : place + 1] == (step,) else None


def latest_finite(curve: Curve, step: int, after: int = 0) -> Evaluation | None:
    """The gate value's evaluation: the latest at or before `step`, and after `after`, with a finite loss."""
    known = reversed(curve.evaluations[bisect_right(curve.steps, after) : bisect_right(curve.steps, step)])
    return next((evaluation for evaluation in known if math.isfinite(evaluation.eval_loss)), None)


def best_so_far(curve: Curve) -> tuple[float, ...]:
    """The lowest finite eval loss up to each evaluation, in nats per token; infinite until there is one."""
    return curve.best


def moving_improvement(curve: Curve, k: int = 2) -> float | None:
    """Nats per 1,000 steps gained over the last `k` evaluations; None before evaluation `k + 1`.

    `1000 * (best[n-k] - best[n]) / (t[n] - t[n-k])`, the protocol's moving improvement. An evaluation at
    step 0 is none of them.
    """
    best = best_so_far(curve)
    if k < 1 or len(best) <= k or not math.isfinite(best[-1 - k]):
        return None
    steps = curve.evaluations[-1].step - curve.evaluations[-1 - k].step
    return 1000 * (best[-1 - k] - best[-1]) / steps


def comparable(subject: Curve, other: Curve) -> str | None:
    """Why the eval losses of two curves cannot be compared, as a clause for a sentence; None when they can.

    The same evaluation set, tokenizer, schedule family and horizon. Where tokens per step differ, a
    horizon of the same number of tokens is the same horizon too.
    """
    left, right = subject.identity, other.identity
    if left is None or right is None:
        silent = subject if left is None else other
        if silent.unrecorded:
            return f"the reference {silent.variant} has no recorded {_listed(silent.unrecorded)}"
        return f"{silent.variant} (seed {silent.seed}) has not reported its identity yet"
    if left.evaluation_set != right.evaluation_set:
        return f"their evaluation sets differ ({left.evaluation_set} and {right.evaluation_set})"
    if left.tokenizer != right.tokenizer:
        return f"their tokenizers differ ({left.tokenizer} and {right.tokenizer})"
    if left.schedule_family != right.schedule_family:
        return f"their schedule families differ ({left.schedule_family} and {right.schedule_family})"
    if left.horizon_step == right.horizon_step:
        return None
    if left.horizon_step * left.tokens_per_step == right.horizon_step * right.tokens_per_step:
        return None
    return f"their schedule horizons differ ({left.horizon_step} and {right.horizon_step} steps)"


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def axis_of(subject: Curve, other: Curve) -> Axis:
    """`step` when tokens per step agree, else `tokens`."""
    left, right = subject.identity, other.identity
    same = left is None or right is None or left.tokens_per_step == right.tokens_per_step
    return "step" if same else "tokens"


def loss_at(curve: Curve, axis: Axis, at: int, ratio: float = 2.0) -> tuple[float, bool] | None:
    """(eval loss, whether it is interpolated) of a curve at a step or number of tokens; None when not known.

    An exact evaluation is taken as it is. Else log loss is linear in log budget between the two
    finite evaluations around `at`, if the later is at most `ratio` times the earlier. Never extrapolated.
    """
    exact = evaluation_at(curve, at) if axis == "step" else None
    points = [] if exact else [(getattr(e, axis), e.eval_loss) for e in curve.evaluations]
    known = exact.eval_loss if exact else next((loss for x, loss in points if x == at), None)
    if known is not None:
        return (known, False) if math.isfinite(known) else None
    usable = [(x, loss) for x, loss in points if x > 0 and math.isfinite(loss) and loss > 0]
    before = max((p for p in usable if p[0] < at), default=None)
    after = min((p for p in usable if p[0] > at), default=None)
    if before is None or after is None or after[0] > ratio * before[0]:
        return None
    share = math.log(at / before[0]) / math.log(after[0] / before[0])
    return math.exp((1 - share) * math.log(before[1]) + share * math.log(after[1])), True


def match(subject: Curve, other: Curve, step: int, ratio: float = 2.0) -> Match | Unmatched:
    """The subject's evaluation at `step` beside the other curve's loss at the same budget."""
    reason = comparable(subject, other)
    if reason is not None:
        return Unmatched(f"{subject.variant} and {other.variant} are not compared: {reason}", invalid=True)
    evaluation = evaluation_at(subject, step)
    if evaluation is None or not math.isfinite(evaluation.eval_loss):
        return Unmatched(f"{subject.variant} has no finite evaluation at step {step}", invalid=False)
    axis = axis_of(subject, other)
    at = evaluation.step if axis == "step" else evaluation.tokens
    found = loss_at(other, axis, at, ratio)
    if found is None:
        where = f"step {at}" if axis == "step" else f"{at} tokens"
        return Unmatched(f"{other.variant} has no evaluation at {where} or close around it", invalid=False)
    return Match(
        step=step,
        tokens=evaluation.tokens,
        axis=axis,
        loss=evaluation.eval_loss,
        other_loss=found[0],
        interpolated=found[1],
    )
