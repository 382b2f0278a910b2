"""What is searched by bisection and kept on a curve is what a walk over its evaluations finds."""

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.curves import (
    Curve,
    best_so_far,
    evaluation_at,
    latest_finite,
    trained_evaluations,
    upto,
)
from orchestrator.protocol.report import Evaluation

LOSSES = st.one_of(st.floats(2, 5), st.sampled_from([math.nan, math.inf, -math.inf]))


def curve(losses: dict[int, float], **changes: Any) -> Curve:
    numbers = {"perplexity": 1.0, "train_loss": 1.0, "learning_rate": 1.0, "grad_norm": 1.0}
    evaluations = tuple(
        Evaluation(step=s, tokens=s, eval_loss=losses[s], tokens_per_second=1, wall_seconds=s, **numbers)
        for s in sorted(losses)
    )
    return Curve(1, "a", 0, False, None, evaluations, **changes)


@given(st.dictionaries(st.integers(1, 12), LOSSES, max_size=8), st.integers(-1, 13), st.booleans())
def test_bisection_finds_what_a_walk_finds(losses: dict[int, float], step: int, untrained: bool) -> None:
    made = curve(losses)
    assert trained_evaluations(curve({0: 9.0, **losses} if untrained else losses)) == made.evaluations
    known = [e for e in made.evaluations if e.step <= step]
    finite = [e for e in known if e.step > 0 and math.isfinite(e.eval_loss)]
    assert evaluation_at(made, step) is next((e for e in made.evaluations if e.step == step), None)
    assert latest_finite(made, step) is (finite[-1] if finite else None)
    assert upto(made, step).evaluations == tuple(known)
    walks = [made.evaluations[: i + 1] for i in range(len(losses))]
    best = [[e.eval_loss for e in walk if e.step > 0 and math.isfinite(e.eval_loss)] for walk in walks]
    assert list(best_so_far(made)) == [min(found, default=math.inf) for found in best]


def test_a_curve_without_a_later_point_is_its_own_prefix() -> None:
    made = curve({1: 3.0, 2: 2.0}, train_loss=((1, 3.0), (2, 2.5)), restarts=(2, 1))
    assert upto(made, 2) is made
    assert upto(made, 1).train_loss == ((1, 3.0),)
    assert upto(made, 1).restarts == (1,)
    assert upto(curve({1: 3.0}, train_loss=((5, 1.0),)), 1).train_loss == ()
    assert upto(curve({1: 3.0}, restarts=(5,)), 1).restarts == ()
