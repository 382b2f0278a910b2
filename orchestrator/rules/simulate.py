"""What a policy would have done with a set of recorded curves, one run for each config, one the control.

The decisions are those of `judge_evaluation`, `judge_point` and `close_stage`, step by step: the same
criteria are asked through `verdicts.Verdicts`, which keeps what does not depend on the set.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.domain.curves import comparable
from orchestrator.domain.decisions import PromoteRule
from orchestrator.domain.evidence import Verdict
from orchestrator.rules.cases import own_case
from orchestrator.rules.criteria import Grid, noise_margin
from orchestrator.rules.criteria_health import healthy_routing, not_diverged
from orchestrator.rules.history import Recorded, Replay
from orchestrator.rules.nodes import Combined, Leaf, evaluations_needed
from orchestrator.rules.policies import Policy, sigma_at
from orchestrator.rules.ranking import Contender, contender_at, rank
from orchestrator.rules.routing import is_moe
from orchestrator.rules.verdicts import FieldSays, Verdicts

FINISHED = "finished"


@dataclass(frozen=True)
class Exit:
    """Where a run left, and why."""

    step: int
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What a policy would have done with one set. Runs are numbered by their place in the history."""

    exits: dict[int, Exit]
    """Of each run, the control among them; `finished` at the horizon."""
    promoted: tuple[tuple[int, ...], ...]
    """Who went on at each gate that was reached, best first."""
    pick: int
    """The best at the end; the control where no variant came there."""
    steps: int
    """Trained by all runs together."""

    @property
    def has_winner(self) -> bool:
        """Whether a variant came to the end."""
        return any(left.reason == FINISHED for left in self.exits.values())


@dataclass(frozen=True)
class Unscorable:
    """The policy asked for what was not recorded: nothing is said of the set."""

    run: int
    step: int
    """Where an evaluation was needed."""
    reason: str


class Simulator:
    """One policy over one history. What was worked out for a set serves the next."""

    def __init__(self, policy: Policy, replay: Replay, recorded: Sequence[Recorded]) -> None:
        self.policy, self.replay, self.recorded = policy, replay, recorded
        self.verdicts = Verdicts(policy, recorded)
        self._recorded_steps = [frozenset(run.curve.steps) for run in recorded]
        self._leaves: dict[int, Exit | None] = {}
        self._contenders: dict[tuple[int, int], Contender] = {}
        self._comparable: dict[tuple[int, int], bool] = {}
        self._diverges: dict[int, int | None] = {}
        self._needed = _needed(policy.stop)
        """Evaluations before the stop rule can pass by a run's own curve; None where it never can."""

    def run(self, members: Sequence[int], control: int) -> Outcome | Unscorable:
        """The outcome for a set: `members` in the plan's order, the control one of them."""
        return _Race(self, members, control).run()

    def own_exit(self, run: int) -> Exit | None:
        """Where the run's own curve makes it leave, whoever else is there; None when nothing does."""
        if run not in self._leaves:
            asked = ((step, self._leaves_at(run, step)) for step in self._steps_to_ask(run))
            self._leaves[run] = next((Exit(step, why) for step, why in asked if why is not None), None)
        return self._leaves[run]

    def control_breaks(self, run: int) -> int | None:
        """The step at which the run, as the control, has diverged: nothing else ends a control."""
        if run not in self._diverges:
            diverged = (step for step in self._suspects(run) if self._diverged(run, step))
            self._diverges[run] = next(diverged, None)
        return self._diverges[run]

    def has(self, run: int, step: int) -> bool:
        """Whether the run was evaluated at the step."""
        return step in self._recorded_steps[run]

    def contender(self, run: int, step: int) -> Contender:
        """The run in the ranking of a gate."""
        key = (run, step)
        if key not in self._contenders:
            recorded = self.recorded[run]
            self._contenders[key] = contender_at(recorded.config, [recorded.curve], step)
        return self._contenders[key]

    def comparable(self, run: int, control: int) -> bool:
        """Whether the losses of the two mean the same."""
        key = (run, control)
        if key not in self._comparable:
            curves = self.recorded[run].curve, self.recorded[control].curve
            self._comparable[key] = comparable(*curves) is None
        return self._comparable[key]

    def sound(self, run: int, control: int, step: int) -> bool:
        """Whether the run may be ranked against the control."""
        return self.comparable(run, control) and math.isfinite(self.contender(run, step).value)

    def tie(self, step: int) -> float:
        """Gate values this near to the best of their group are a tie, in nats."""
        ties, sigma = self.policy.ties, sigma_at(self.policy, step, self.replay.horizon)
        return noise_margin(ties.floor, ties.sigmas, sigma) + self.policy.tolerance

    def _suspects(self, run: int) -> list[int]:
        """The steps at which the run may have diverged: nowhere else can `not_diverged` fail."""
        curve = self.recorded[run].curve
        far = self.policy.diverged.above_best
        losses = zip(curve.evaluations, curve.best, strict=True)
        return [e.step for e, best in losses if e.step > 0 and not 0 <= e.eval_loss - best <= far]

    def _steps_to_ask(self, run: int) -> list[int]:
        """The steps at which the run's own curve could make it leave."""
        curve = self.recorded[run].curve
        trained = [step for step in curve.steps if step > 0]
        if is_moe(curve):
            return trained
        stops = [] if self._needed is None else trained[self._needed - 1 :]
        return sorted({*self._suspects(run), *stops})

    def _diverged(self, run: int, step: int) -> bool:
        case = own_case(self.verdicts.prefix(run, step), step, self.policy)
        return not_diverged(self.policy.diverged, case).verdict is Verdict.FAIL

    def _leaves_at(self, run: int, step: int) -> str | None:
        """Why the run leaves at the step by its own curve, by the precedence of `judge_evaluation`."""
        case = own_case(self.verdicts.prefix(run, step), step, self.policy)
        if not_diverged(self.policy.diverged, case).verdict is Verdict.FAIL:
            return "diverged"
        if healthy_routing(self.policy.unhealthy_routing, case).verdict is Verdict.FAIL:
            return "unhealthy_routing"
        if step >= self.replay.stage_at(step).steps:
            return None  # the gate's own step: a promotion goes before a stop
        asked = self._needed is not None and self.verdicts.ask(self.policy.stop, run, None, step)
        return "plateau" if asked is Verdict.PASS else None


def _needed(stop: Combined | Leaf) -> int | None:
    """As `evaluations_needed` without the field; a `not` may pass early, when what it turns round fails."""
    needed = evaluations_needed(stop, field=False)
    return needed if needed is None or not _has_not(stop) else 1


def _has_not(node: Combined | Leaf) -> bool:
    return isinstance(node, Combined) and (node.how == "not" or any(map(_has_not, node.parts)))


class _Race:
    """One set on its way through the stages."""

    def __init__(self, simulator: Simulator, members: Sequence[int], control: int) -> None:
        self.simulator, self.control = simulator, control
        self.alive = [run for run in members if run != control]
        self.order = {run: place for place, run in enumerate(self.alive)}
        stages = tuple(stage.steps for stage in simulator.replay.stages)
        self.grid = Grid(simulator.replay.every, stages, entered=len(self.alive))
        self.exits: dict[int, Exit] = {}
        self.promoted: list[tuple[int, ...]] = []

    def run(self) -> Outcome | Unscorable:
        """From step 0 to the end, or to where the recording does not suffice."""
        broken = self.simulator.control_breaks(self.control)
        if broken is not None:  # every gate after it would hold
            return Unscorable(self.control, broken, "the control diverged")
        gates = {stage.steps: place for place, stage in enumerate(self.simulator.replay.stages)}
        for step in sorted({*self.simulator.verdicts.points(self.grid), *gates}):
            self._leave_by_own_curve(step)
            if not self.alive:
                break
            missing = self._missing(step)
            if missing is not None:
                return missing
            if step == self.grid.horizon:
                self._leave(self.alive, step, FINISHED)
            elif step in gates:
                self._gate(step, self.simulator.replay.promote[gates[step]])
            else:
                self._point(step)
        return self._outcome()

    def _leave(self, runs: Sequence[int], step: int, reason: str) -> None:
        self.exits |= {run: Exit(step, reason) for run in runs}
        self.alive = [run for run in self.alive if run not in self.exits]

    def _leave_by_own_curve(self, step: int) -> None:
        for run in self.alive:
            left = self.simulator.own_exit(run)
            if left is not None and left.step <= step:
                self.exits[run] = left
        self.alive = [run for run in self.alive if run not in self.exits]

    def _missing(self, step: int) -> Unscorable | None:
        """The first evaluation that is needed at the step and was not recorded."""
        lacking = (run for run in (self.control, *self.alive) if not self.simulator.has(run, step))
        run = next(lacking, None)
        return None if run is None else Unscorable(run, step, "not recorded so far")

    def _point(self, step: int) -> None:
        """Who leaves as `judge_point` says, the whole field being there."""
        for reason, runs in self._stopped(step).items():
            self._leave(runs, step, reason)

    def _stopped(self, step: int) -> dict[str, list[int]]:
        """Those that the stop rule passes for, by why: their place in the field, or without it."""
        node, ask = self.simulator.policy.stop, self.simulator.verdicts.ask
        field = self._field(node, step)
        passed = [run for run in self.alive if ask(node, run, self.control, step, field) is Verdict.PASS]
        alone = [run for run in passed if ask(node, run, self.control, step) is Verdict.PASS]
        return {"plateau": alone, "outranked": [run for run in passed if run not in alone]}

    def _field(self, node: Combined | Leaf, step: int) -> FieldSays:
        """Everyone still there who is comparable with the control."""
        verdicts = self.simulator.verdicts
        there = [run for run in self.alive if self.simulator.comparable(run, self.control)]
        standings = [verdicts.standing(run, self.order[run], step) for run in there]
        return verdicts.field(node, standings, step, self.grid)

    def _gate(self, step: int, rule: PromoteRule) -> None:
        """Who goes on, as `close_stage` selects: the best of the eligible, or the best one on probation."""
        simulator = self.simulator
        stopped = self._stopped(step)
        outranked = stopped["outranked"] if simulator.verdicts.promotes_all else []
        sound = [r for r in self.alive if r not in outranked and simulator.sound(r, self.control, step)]
        eligible = self._eligible(sound, rule, step)
        probation = not eligible and rule.if_none == "probation"
        staying = sound if probation else eligible
        pool = {simulator.recorded[run].config: run for run in staying}
        ranked = rank([simulator.contender(run, step) for run in staying], simulator.tie(step))
        going = [pool[contender.variant] for contender in ranked][: 1 if probation else rule.best]
        self.promoted.append(tuple(going))
        self._leave(outranked, step, "outranked")
        declined = [run for run in self.alive if run not in going]
        flat = {run for runs in stopped.values() for run in runs}
        self._leave([run for run in declined if run in flat], step, "plateau")
        self._leave([run for run in declined if run not in flat], step, "not_promoted")

    def _eligible(self, sound: list[int], rule: PromoteRule, step: int) -> list[int]:
        if rule.eligible == "all":
            return sound
        node, ask = self.simulator.policy.promote, self.simulator.verdicts.ask
        field = self._field(node, step)
        return [run for run in sound if ask(node, run, self.control, step, field) is Verdict.PASS]

    def _outcome(self) -> Outcome:
        """The control trained as far as the furthest variant, and is the pick where none came to the end."""
        furthest = max((left.step for left in self.exits.values()), default=0)
        finished = [run for run, left in self.exits.items() if left.reason == FINISHED]
        reason = FINISHED if finished else "control"
        exits = self.exits | {self.control: Exit(furthest, reason)}
        pick = min([*finished, self.control], key=self._final) if finished else self.control
        return Outcome(exits, tuple(self.promoted), pick, sum(left.step for left in exits.values()))

    def _final(self, run: int) -> tuple[float, str]:
        final = self.simulator.recorded[run].final(self.grid.horizon)
        return math.inf if final is None else final, self.simulator.recorded[run].config
