"""A whole field in few words: losses by variant at one step, and what a policy decides there."""

from collections.abc import Mapping, Sequence
from typing import Any

from rule_builders import CONFIRM, control, curve, entrants

from orchestrator.domain.curves import Curve, StageView
from orchestrator.domain.decisions import DecisionKind, Judgement
from orchestrator.rules.criteria import CRITERIA, Grid, Standing
from orchestrator.rules.point import judge_point
from orchestrator.rules.policies import Policy

GRID = Grid(every=500, stages=(1000, 5000, 50_000), entered=8)


def standings(*losses: float, **means: float) -> list[Standing]:
    """Variants v0, v1, ... with these losses; each has been at its loss all along."""
    return [
        Standing(f"v{i}", i, loss, means.get(f"v{i}", loss), min(loss, means.get(f"v{i}", loss)))
        for i, loss in enumerate(losses)
    ]


def drops(name: str, field: Sequence[Standing], step: int, grid: Grid = GRID, **numbers: Any) -> set[str]:
    """Whom a criterion drops."""
    criterion = CRITERIA[name]
    assert criterion.field is not None
    return set(criterion.field.drops(criterion.params.model_validate(numbers), field, step, grid))


def points_of(name: str, grid: Grid = GRID, **numbers: Any) -> tuple[int, ...]:
    criterion = CRITERIA[name]
    assert criterion.field is not None
    return criterion.field.points(criterion.params.model_validate(numbers), grid)


def runs_at(step: int, losses: Mapping[str, float], **changes: Any) -> list[Curve]:
    """Each variant with one evaluation before the step and one at it, the control with them."""
    before = max(step - 500, 1)
    found = [curve(name, {before: loss + 0.5, step: loss}, **changes) for name, loss in losses.items()]
    return [control({before: 5.0, step: 4.5}, **changes), *found]


def judge(
    runs: Sequence[Curve],
    policy: Policy,
    *,
    step: int,
    grid: Grid = GRID,
    stage: StageView = CONFIRM,
    order: Sequence[str] = (),
    out: Sequence[Curve] = (),
) -> dict[str, Judgement]:
    """What is decided at the point, by variant and, where there are more, seed."""
    named = order or [run.variant for run in runs if not run.is_control]
    found = judge_point(
        entrants(*runs, out=tuple(out)), step=step, stage=stage, grid=grid, order=named, policy=policy
    )
    seeds = len({run.seed for run in runs}) > 1
    return {f"{r.variant}/{r.seed}" if seeds else r.variant: found[r.run_id] for r in runs}


def stopped(judged: Mapping[str, Judgement]) -> set[str]:
    return {name for name, judgement in judged.items() if judgement.kind is DecisionKind.STOP}
