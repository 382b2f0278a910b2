"""What a second policy would have decided in a stage, from the curves that the first one left."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.domain.curves import Curve, StageView, evaluation_at, trained_evaluations, upto
from orchestrator.domain.decisions import DecisionKind, Entrant, Judgement, PromoteRule
from orchestrator.rules.criteria import Grid
from orchestrator.rules.gate import Anchor, close_stage
from orchestrator.rules.judge import judge_evaluation
from orchestrator.rules.point import judge_point
from orchestrator.rules.policies import Policy

ENDS = frozenset({DecisionKind.STOP, DecisionKind.FAIL, DecisionKind.DECLINE})


@dataclass(frozen=True)
class Shadow:
    """A policy that looks on, and the plan that it looks on at."""

    policy: Policy
    grid: Grid
    order: Sequence[str]
    stage: StageView
    """With the points of this policy, at which the runs did not wait: their curves are there all the same."""
    begins: int
    """The step at which the stage began."""
    rule: PromoteRule | None
    """Who would enter the next stage; None in the last."""
    anchor: Anchor


@dataclass(frozen=True)
class Logged:
    """One decision that was not taken."""

    run_id: int
    step: int
    phase: str
    judgement: Judgement


def look_on(shadow: Shadow, curves: Mapping[int, Curve]) -> Iterator[Logged]:
    """Its decisions on these runs, in order of step; a run that it would have ended is heard of no more.

    It sees no further than the first policy trained: where a run has no evaluation, it decides nothing.
    """
    left = dict(curves)
    inside = {e.step for curve in curves.values() for e in trained_evaluations(curve)}
    for step in sorted(step for step in inside if shadow.begins < step <= shadow.stage.steps):
        for logged in _at(shadow, left, step):
            yield logged
            if logged.judgement.kind in ENDS:
                left.pop(logged.run_id, None)


def _at(shadow: Shadow, left: dict[int, Curve], step: int) -> Iterator[Logged]:
    there = {id_: upto(curve, step) for id_, curve in left.items() if evaluation_at(curve, step)}
    ended = set()
    for id_, curve in sorted(there.items()):
        judgement = judge_evaluation(curve, stage=shadow.stage, policy=shadow.policy)
        if judgement.kind in ENDS:
            ended.add(id_)
        yield Logged(id_, step, "evaluation", judgement)
    entrants = [Entrant(curve, out=False) for id_, curve in sorted(there.items()) if id_ not in ended]
    yield from _together(shadow, entrants, step)


def _together(shadow: Shadow, entrants: Sequence[Entrant], step: int) -> Iterator[Logged]:
    """At a point or at the gate, where runs are compared with each other."""
    stage, policy = shadow.stage, shadow.policy
    judged: Mapping[int, Judgement] = {}
    phase = "point"
    if step in stage.points:
        judged = judge_point(
            entrants, step=step, stage=stage, grid=shadow.grid, order=shadow.order, policy=policy
        )
    elif step == stage.steps and shadow.rule is not None:
        outcome = close_stage(entrants, stage=stage, promote=shadow.rule, policy=policy, anchor=shadow.anchor)
        judged, phase = outcome.judgements, "gate"
    for id_, judgement in sorted(judged.items()):
        yield Logged(id_, step, phase, judgement)
