"""Which of several variants was best at a step: what a variant starts from that waits for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.domain.curves import Curve, comparable, evaluation_at, upto
from orchestrator.domain.evidence import Verdict
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.cases import control_noise, own_case
from orchestrator.rules.criteria import noise_margin
from orchestrator.rules.criteria_health import healthy_routing, not_diverged
from orchestrator.rules.frozen import number
from orchestrator.rules.policies import Policy
from orchestrator.rules.ranking import contender_at, rank


@dataclass(frozen=True)
class Choice:
    """The order of the sound ones, best first, and why each of the others is not in it."""

    step: int
    ranked: tuple[str, ...]
    losses: Mapping[str, float]
    """Of the ranked: the mean loss over seeds, in nats."""
    left_out: Mapping[str, str]

    @property
    def best(self) -> str | None:
        return self.ranked[0] if self.ranked else None

    @property
    def text(self) -> str:
        """The choice as a clause."""
        if not self.ranked:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.left_out.items())
            return f"none is sound at step {self.step} ({reasons})"
        told = ", ".join(f"{name} {self.losses[name]:.3f}" for name in self.ranked)
        return f"{self.best} is the best at step {self.step} ({told})"

    @property
    def evidence(self) -> JsonObject:
        losses: JsonObject = {name: number(loss) for name, loss in self.losses.items()}
        return {
            "step": self.step,
            "ranked": list(self.ranked),
            "losses": losses,
            "left_out": dict(self.left_out),
        }


def best_of(variants: Mapping[str, Sequence[Curve]], step: int, policy: Policy) -> Choice:
    """The order of the variants by their mean loss at `step`, ties settled as at a gate.

    One is left out when it has no finite evaluation there, diverged, routes unhealthily, or is not
    comparable with the first sound one by name. The control is a variant like any other here.
    """
    left_out: dict[str, str] = {}
    sound: dict[str, list[Curve]] = {}
    for name in sorted(variants):
        curves = [upto(curve, step) for curve in variants[name]]
        kept = [curve for curve in curves if _trouble(curve, step, policy) is None]
        against = next((other[0] for other in sound.values()), None)
        strange = next((why for c in kept if against and (why := comparable(c, against))), None)
        if not kept:
            troubles = [_trouble(curve, step, policy) for curve in curves]
            left_out[name] = next((why for why in troubles if why), "it was not trained")
        elif strange is not None:
            left_out[name] = strange
        else:
            sound[name] = kept
    contenders = [contender_at(name, curves, step) for name, curves in sound.items()]
    ranked = tuple(contender.variant for contender in rank(contenders, _tie(sound, step, policy)))
    return Choice(step, ranked, {c.variant: c.value for c in contenders}, left_out)


def _tie(sound: Mapping[str, Sequence[Curve]], step: int, policy: Policy) -> float:
    every = [curve for curves in sound.values() for curve in curves]
    if not every:
        return 0.0
    noise = control_noise([curve for curve in every if curve.is_control], step)
    sigma = own_case(every[0], step, policy).sigma if noise is None else noise
    return noise_margin(policy.ties.floor, policy.ties.sigmas, sigma) + policy.tolerance


def _trouble(curve: Curve, step: int, policy: Policy) -> str | None:
    """Why a run has no part in the order, as a clause; None when it is sound."""
    if evaluation_at(curve, step) is None:
        return f"it ended before step {step}"
    case = own_case(curve, step, policy)
    for guard in (not_diverged(policy.diverged, case), healthy_routing(policy.unhealthy_routing, case)):
        if guard.verdict is Verdict.FAIL:
            return guard.text
    return None
