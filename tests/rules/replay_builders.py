"""Random recorded runs, and the step-by-step driver that the fast replay is held to."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from rule_builders import curve, flat, identity, routing

from orchestrator.domain.curves import Curve, evaluation_at, upto
from orchestrator.domain.decisions import DecisionKind, Entrant
from orchestrator.rules.criteria import Field, Grid
from orchestrator.rules.gate import Anchor, close_stage
from orchestrator.rules.history import Recorded, Replay
from orchestrator.rules.judge import judge_evaluation
from orchestrator.rules.point import field_of, judge_point, points
from orchestrator.rules.policies import Policy
from orchestrator.rules.simulate import FINISHED, Exit, Outcome


def recorded(name: str, losses: dict[int, float], run: str = "r0", **changes: object) -> Recorded:
    """A run of which the losses by step are known."""
    made = curve(name, losses, seed=0, **changes)  # type: ignore[arg-type]
    return Recorded(name, run, replace(made, run_id=hash((name, run)) % 10**9))


def random_recorded(draws: random.Random, name: str, replay: Replay) -> Recorded:
    """A run that learns, stalls, breaks, loses its routing or was recorded only in part."""
    steps = list(replay.steps)
    kind = draws.choice(["whole"] * 6 + ["short", "nan", "jumps", "collapses", "still", "hole"])
    level, rate = draws.choice([3.0, 3.01, draws.uniform(2.9, 3.3)]), draws.uniform(0.2, 0.5)
    losses = {s: level + 4 * (s + 1) ** -rate + draws.gauss(0, 0.01) for s in steps}
    at = draws.randrange(1, len(steps))
    if kind in ("short", "nan", "jumps"):
        losses = {s: loss for s, loss in losses.items() if s <= steps[at]}
        losses[steps[at]] += {"short": 0.0, "nan": math.nan, "jumps": 10.0}[kind]
    if kind == "still":
        losses = {s: min(loss, losses[steps[at]]) + 1e-4 for s, loss in losses.items()}
    if kind == "hole":
        del losses[steps[at]]
    worst = {s: 0.2 if kind == "collapses" and s >= steps[at] else 0.9 for s in losses}
    moe = draws.random() < 0.5 or kind == "collapses"
    changes = {s: {"routing": routing(worst=worst[s])} for s in losses} if moe else {}
    who = identity(
        horizon_step=replay.horizon,
        flops_per_token=draws.choice([1000.0, 2000.0]),
        device=draws.choice(["cuda", "cpu"]),
        evaluation_set="another" if draws.random() < 0.03 else "set-a",
    )
    train = flat(3.0, steps[-1], every=10) if draws.random() < 0.7 else ()
    return recorded(name, losses, who=who, changes=changes, train_loss=train)


class Driver:
    """A set driven by the functions that decide live, one evaluation after the other."""

    def __init__(
        self, policy: Policy, replay: Replay, runs: Sequence[Recorded], members: Sequence[int], control: int
    ) -> None:
        self.policy, self.replay, self.control = policy, replay, control
        self.curves = {m: replace(runs[m].curve, is_control=m == control) for m in members}
        self.alive = [m for m in members if m != control]
        self.order = [self.curves[m].variant for m in self.alive]
        stages = tuple(stage.steps for stage in replay.stages)
        self.grid = Grid(replay.every, stages, len(self.alive))
        self.exits: dict[int, Exit] = {}
        self.promoted: list[tuple[int, ...]] = []
        self.finals = {m: runs[m].final(replay.horizon) for m in members}

    def run(self) -> Outcome | None:
        """None where something was needed that is not recorded."""
        anchor = self.curves[self.control]
        if any(self._judged(anchor, step) is DecisionKind.FAIL for step in anchor.steps):
            return None
        for step in self.replay.steps:
            if not self.alive:
                break
            if not self._step(step):
                return None
        return self._outcome()

    def _judged(self, whole: Curve, step: int) -> DecisionKind:
        known, stage = upto(whole, step), self.replay.stage_at(step)
        return judge_evaluation(known, stage=stage, policy=self.policy).kind

    def _step(self, step: int) -> bool:
        stage = self.replay.stage_at(step)
        for member in list(self.alive):
            if evaluation_at(self.curves[member], step) is not None:
                found = judge_evaluation(upto(self.curves[member], step), stage=stage, policy=self.policy)
                if found.kind in (DecisionKind.FAIL, DecisionKind.STOP):
                    self._leave(member, step, found.reason)
        is_point = step in points(self.policy, self.grid) and step != stage.steps
        if not self.alive or not (is_point or step == stage.steps):
            return True
        there = [self.control, *self.alive]
        if any(evaluation_at(self.curves[member], step) is None for member in there):
            return False
        entrants = [Entrant(upto(self.curves[member], step), out=False) for member in there]
        if is_point:
            judged = judge_point(
                entrants, step=step, stage=stage, grid=self.grid, order=self.order, policy=self.policy
            )
            self._apply({m: judged[self.curves[m].run_id] for m in self.alive}, step)
        elif stage.is_last:
            for member in list(self.alive):
                self._leave(member, step, FINISHED)
        else:
            self._close(entrants, step)
        return True

    def _apply(self, judged: dict, step: int) -> None:  # type: ignore[type-arg]
        for member, judgement in judged.items():
            if judgement.kind in (DecisionKind.STOP, DecisionKind.DECLINE, DecisionKind.FAIL):
                self._leave(member, step, judgement.reason)

    def _close(self, entrants: list[Entrant], step: int) -> None:
        def field(sound: Sequence[Curve]) -> Field | None:
            found = field_of(sound, order=self.order, step=step, grid=self.grid, policy=self.policy)
            return found if isinstance(found, Field) else None

        place = next(i for i, stage in enumerate(self.replay.stages) if stage.steps == step)
        gate = close_stage(
            entrants,
            stage=self.replay.stages[place],
            promote=self.replay.promote[place],
            policy=self.policy,
            anchor=Anchor(field=field),
        )
        by_name = {self.curves[m].variant: m for m in self.alive}
        self.promoted.append(tuple(by_name[name] for name in gate.winners))
        self._apply({m: gate.judgements[self.curves[m].run_id] for m in self.alive}, step)

    def _leave(self, member: int, step: int, reason: str) -> None:
        self.exits[member] = Exit(step, reason)
        self.alive.remove(member)

    def _outcome(self) -> Outcome:
        furthest = max(left.step for left in self.exits.values())
        finished = [m for m, left in self.exits.items() if left.reason == FINISHED]
        exits = self.exits | {self.control: Exit(furthest, FINISHED if finished else "control")}

        def value(m: int) -> tuple[float, str]:
            final = self.finals[m]
            return math.inf if final is None else final, self.curves[m].variant

        pick = min([*finished, self.control], key=value) if finished else self.control
        return Outcome(exits, tuple(self.promoted), pick, sum(left.step for left in exits.values()))
