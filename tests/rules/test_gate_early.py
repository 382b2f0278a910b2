"""Early promotion: what is certain before all have come is what the closed gate says, in any order."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_builders import POLICIES, SCREEN, STAGE_GATE, control, curve, entrants

from orchestrator.domain.curves import Curve
from orchestrator.domain.decisions import DecisionKind, Entrant, GateOutcome, PromoteRule
from orchestrator.rules.cases import field_of
from orchestrator.rules.criteria import Field, Grid
from orchestrator.rules.gate import ALONE, Anchor, close_stage, promote_early

CONTROL = control({500: 3.5, 1000: 3.0})
NAMES = ["a", "b", "c", "d"]
LOSSES = st.sampled_from([2.6, 2.7, 2.9, 2.96, 3.0, 3.1, float("nan")])


def runs_of(losses: Mapping[str, float]) -> dict[str, Curve]:
    return {name: curve(name, {500: 3.4, 1000: loss}) for name, loss in losses.items()}


def rule(best: int = 2, **changes: object) -> PromoteRule:
    return PromoteRule(best, eager=True, **changes)  # type: ignore[arg-type]


def early(there: Sequence[Curve], missing: int, promote: PromoteRule, anchor: Anchor = ALONE) -> GateOutcome:
    return promote_early(
        entrants(CONTROL, *there),
        missing=missing,
        stage=SCREEN,
        promote=promote,
        policy=STAGE_GATE,
        anchor=anchor,
    )


def closed(every: Sequence[Curve], promote: PromoteRule) -> GateOutcome:
    return close_stage(entrants(CONTROL, *every), stage=SCREEN, promote=promote, policy=STAGE_GATE)


def test_a_variant_goes_on_when_it_and_all_who_are_missing_fit_under_the_cap() -> None:
    runs = runs_of({"a": 2.7})
    assert early([runs["a"]], 1, rule(2)).winners == ("a",)
    assert early([runs["a"]], 2, rule(2)).judgements == {}


def test_the_control_goes_with_the_first_that_is_certain() -> None:
    outcome = early([runs_of({"a": 2.7})["a"]], 0, rule(2))
    assert outcome.judgements[CONTROL.run_id].kind is DecisionKind.PROMOTE
    assert outcome.judgements[CONTROL.run_id].text.endswith("whose places after screen are certain")


def test_one_that_is_not_eligible_takes_no_place() -> None:
    runs = runs_of({"a": 2.7, "b": 3.1, "c": 3.2})
    outcome = early(list(runs.values()), 1, rule(2))
    assert outcome.winners == ("a",)
    assert set(outcome.judgements) == {CONTROL.run_id, runs["a"].run_id}


def test_nobody_is_put_on_probation_early() -> None:
    assert early([runs_of({"b": 3.1})["b"]], 0, rule(2, if_none="probation")).judgements == {}


def test_a_gate_that_is_not_eager_says_nothing_of_certainty() -> None:
    runs = list(runs_of({"a": 2.7}).values())
    assert early(runs, 0, PromoteRule(2)).judgements == {}
    assert "certain" not in closed(runs, PromoteRule(2)).judgements[runs[0].run_id].text


def test_seeds_that_the_next_stage_does_not_train_are_done_early_too() -> None:
    pair = [curve("a", {500: 3.4, 1000: 2.7}, seed=seed) for seed in (0, 1)]
    outcome = early(pair, 0, rule(2, seeds=(0,)))
    kinds = {run.seed: outcome.judgements[run.run_id] for run in pair}
    assert (kinds[0].kind, kinds[1].kind) == (DecisionKind.PROMOTE, DecisionKind.DECLINE)
    assert kinds[1].reason == "seed_done"
    assert "goes on from screen without seed 1" in kinds[1].text


@pytest.mark.parametrize("name", ["race", "successive-halving", "median-stop"])
def test_where_the_field_is_compared_no_place_is_certain_before_all_are_there(name: str) -> None:
    policy, grid = POLICIES[name], Grid(500, (1000, 5000), 4)

    def field(curves: Sequence[Curve]) -> Field | None:
        found = field_of(curves, order=NAMES, step=1000, grid=grid, policy=policy)
        return found if isinstance(found, Field) else None

    runs = runs_of({"a": 2.9})
    there = [Entrant(run, out=False) for run in (CONTROL, *runs.values())]
    outcome = promote_early(
        there, missing=0, stage=SCREEN, promote=rule(4), policy=policy, anchor=Anchor(field=field)
    )
    assert outcome.judgements == {}


@settings(max_examples=150, derandomize=True)
@given(
    losses=st.fixed_dictionaries(dict.fromkeys(NAMES, LOSSES)),
    order=st.permutations(NAMES),
    best=st.integers(1, 4),
    eligible=st.sampled_from(["policy", "all"]),
    if_none=st.sampled_from(["no_winner", "probation"]),
)
def test_whatever_the_order_of_arrival_early_and_closed_gate_say_the_same(
    losses: dict[str, float], order: list[str], best: int, eligible: str, if_none: str
) -> None:
    runs, promote = runs_of(losses), rule(best, eligible=eligible, if_none=if_none)
    final = closed(list(runs.values()), promote)
    for count in range(1, len(order)):
        there = [runs[name] for name in order[:count]]
        outcome = early(there, len(order) - count, promote)
        assert set(outcome.winners) <= set(final.winners)
        assert all(final.judgements[id_] == judgement for id_, judgement in outcome.judgements.items())


@settings(max_examples=60, derandomize=True)
@given(
    losses=st.fixed_dictionaries(dict.fromkeys(NAMES, LOSSES)),
    order=st.permutations(NAMES),
    best=st.integers(1, 4),
)
def test_who_is_certain_stays_certain(losses: dict[str, float], order: list[str], best: int) -> None:
    runs = runs_of(losses)
    before: set[str] = set()
    for count in range(1, len(order) + 1):
        now = set(early([runs[name] for name in order[:count]], len(order) - count, rule(best)).winners)
        assert before <= now
        before = now
