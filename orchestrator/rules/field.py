"""What the criteria that compare variants with each other share: points, ranks, sentences."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from orchestrator.domain.evidence import CriterionResult, Verdict
from orchestrator.rules.criteria import (
    Case,
    Field,
    FieldRule,
    Grid,
    Params,
    Standing,
    register,
    unknown,
    verdict_of,
)

P = TypeVar("P", bound=Params)

MOST_POINTS = 10_000
"""Of one criterion: beyond it the points thin out."""

EXACT = 1e-9
"""What floats may add to a whole number before it is rounded up."""

Told = tuple[str, float | None, float | None]
"""The sentence on one variant, what was measured of it, and the threshold."""

Teller = Callable[[P, Field, Standing], Told]


def first_at(grid: Grid, share: float) -> int:
    """The first evaluation step at or after that share of the horizon."""
    return max(1, math.ceil(share * grid.horizon / grid.every - EXACT)) * grid.every


def points_every(grid: Grid, evaluations: int, start: float = 0.0) -> tuple[int, ...]:
    """Every so many evaluations, from a share of the horizon on; at most 10,000 points, none at the end."""
    sparse = math.ceil(grid.horizon / MOST_POINTS / grid.every)
    stride = max(evaluations, sparse) * grid.every
    first = math.ceil(first_at(grid, start) / stride) * stride
    return tuple(range(first, grid.horizon, stride))


def diverged(standings: Sequence[Standing]) -> frozenset[str]:
    """Those without a finite loss: they leave at once and are in no rank, mean or median."""
    return frozenset(standing.variant for standing in standings if not math.isfinite(standing.loss))


def outside(order: Sequence[Standing], cap: int) -> frozenset[str]:
    """Those ranked below the cap."""
    return frozenset(standing.variant for standing in order[cap:])


def compares(
    name: str,
    params: type[P],
    *,
    drops: Callable[[P, Sequence[Standing], int, Grid], frozenset[str]],
    points: Callable[[P, Grid], tuple[int, ...]],
) -> Callable[[Teller[P]], Teller[P]]:
    """Enter a criterion of the field in the registry, around the function that tells its sentence."""
    rule = FieldRule(drops, points)

    def enter(tell: Teller[P]) -> Teller[P]:
        register(name, params, needs=lambda _: 1, field=rule)(partial(ask_field, name, rule, tell))
        return tell

    return enter


def ask_field(name: str, rule: FieldRule, tell: Teller[P], params: P, case: Case) -> CriterionResult:
    """Passes when the rule drops the case's variant; inconclusive where the field is not there."""
    field = case.field
    if field is None:
        return unknown(name, "judged at points, when all have come to the step")
    standing = field.by_name.get(case.subjects[0].variant) if case.subjects else None
    if standing is None:
        return unknown(name, f"it is not among the variants compared at step {field.step:,}")
    if not math.isfinite(standing.loss):
        text = f"it has no finite eval loss at step {field.step:,}: what diverged leaves at once"
        return CriterionResult(name, Verdict.PASS, text)
    dropped = _dropped(name, rule, params, field)
    text, measured, threshold = tell(params, field, standing)
    return CriterionResult(name, verdict_of(standing.variant in dropped), text, measured, threshold)


def _dropped(name: str, rule: FieldRule, params: Params, field: Field) -> frozenset[str]:
    """Worked out once for the field: the answer is the same whoever asks."""
    key = (name, params)
    if key not in field.asked:
        field.asked[key] = rule.drops(params, field.standings, field.step, field.grid)
    return field.asked[key]


def ranked_sentence(field: Field, standing: Standing) -> str:
    """`eval loss 3.214 is rank 5 of 8 at step 2,500`."""
    mean = f"mean over {standing.seeds} seeds: " if standing.seeds > 1 else ""
    place = f"rank {field.ranks[standing.variant]} of {len(field.ranks)}"
    return f"{mean}eval loss {standing.loss:.3f} is {place} at {where(field)}"


def where(field: Field) -> str:
    return f"step {field.step:,}" if field.tokens is None else f"{field.tokens:,} tokens"
