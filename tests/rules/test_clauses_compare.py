"""Clause by clause: what is compared with what, by the shipped policy `stage-gate`.

The clauses are the rows of "Clause by clause" in docs/protocol.md: every number of a row from both sides.
"""

import math
from typing import Any

import pytest
from rule_builders import (
    CONFIRM,
    DOCUMENTS,
    STAGE_GATE,
    Case,
    case,
    control,
    curve,
    entrants,
    identity,
    routing,
)

from orchestrator.domain.curves import Curve, Match, Unmatched, comparable, loss_at, match
from orchestrator.domain.decisions import PromoteRule
from orchestrator.domain.evidence import Verdict
from orchestrator.rules.bands import Band, band_view
from orchestrator.rules.cases import paired_case
from orchestrator.rules.criteria import PairedGap, paired_gap
from orchestrator.rules.gate import close_stage
from orchestrator.rules.nodes import ask
from orchestrator.services.views_compare import CompareRow

PASS, FAIL, OPEN, INVALID = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.INVALID
GPU = {"device": "cuda: NVIDIA H100"}


def promoted(judged: Case) -> dict[str, Verdict]:
    """The verdict of every criterion of the promote rule, and of the rule as `promote`."""
    found = ask(STAGE_GATE.promote, judged)
    beats, other = found.parts
    return {"promote": found.verdict} | {part.name: part.verdict for part in (beats, *other.parts)}


def beside(mine: float, theirs: float, **changes: Any) -> Case:
    return case(curve("a", {1000: mine}), control({1000: theirs}), **changes)


@pytest.mark.parametrize("field", ["evaluation_set", "tokenizer"])
def test_clause_loss_is_of_one_evaluation_set_and_tokenizer(field: str) -> None:
    alien = curve("a", {1000: 3.0}, who=identity(**{field: "another"}))
    anchor = control({1000: 4.0})
    found = ask(STAGE_GATE.promote, case(alien, anchor))
    assert [part.verdict for part in found.parts[:1]] == [INVALID]
    assert "another" in found.parts[0].text
    judged = close_stage(
        entrants(alien, anchor), stage=CONFIRM, promote=PromoteRule(1, "all"), policy=STAGE_GATE
    )
    assert judged.winners == ()


def test_clause_loss_is_compared_in_nats_per_token() -> None:
    gap = paired_gap(beside(3.17, 3.25), 1000)
    assert isinstance(gap, PairedGap)
    assert gap.gap == pytest.approx(-0.08)


class TestSameStepBudget:
    @pytest.mark.parametrize(
        ("steps", "at", "found"),
        [
            pytest.param({1000: 4.0, 2000: 3.0}, 1000, (4.0, False), id="measured there"),
            pytest.param({1000: 4.0, 2000: 3.0}, 1414, 3.464, id="a ratio of 2 is interpolated"),
            pytest.param({1000: 4.0, 2001: 3.0}, 1414, None, id="a ratio above 2 is not"),
            pytest.param({1000: 4.0, 2000: 3.0}, 2001, None, id="never past the end"),
            pytest.param({1000: 4.0, 2000: 3.0}, 999, None, id="never before the beginning"),
            pytest.param({0: 9.0, 2000: 3.0}, 1000, None, id="never from step 0"),
            pytest.param({1000: 4.0, 1414: math.nan, 2000: 3.0}, 1414, None, id="measured, and not finite"),
        ],
    )
    def test_clause_same_step_budget_interpolates_and_never_extrapolates(
        self, steps: dict[int, float], at: int, found: Any
    ) -> None:
        seen = loss_at(control(steps), "step", at, STAGE_GATE.interpolation_ratio)
        if isinstance(found, float):
            assert seen is not None
            assert seen[1]
            assert seen[0] == pytest.approx(found, abs=1e-3)  # sqrt(4 * 3), half way in log steps
        else:
            assert seen == found

    def test_clause_same_step_budget_is_tokens_where_tokens_per_step_differ(self) -> None:
        who = identity(tokens_per_step=65_536, horizon_step=25_000)
        wide = control(
            {500: 3.5, 1000: 3.0}, who=who, changes={s: {"tokens": s * 65_536} for s in (500, 1000)}
        )
        found = match(curve("a", {1000: 3.4}), wide, 1000)
        assert isinstance(found, Match)
        assert (found.axis, found.tokens, found.other_loss) == ("tokens", 32_768_000, 3.5)

    def test_clause_same_step_budget_not_there_yet_is_inconclusive(self) -> None:
        assert promoted(case(curve("a", {1000: 1.0}), control({500: 5.0})))["promote"] is OPEN
        found = match(curve("a", {1000: 1.0}), control({500: 5.0}), 1000)
        assert isinstance(found, Unmatched)
        assert not found.invalid


@pytest.mark.parametrize(
    ("changes", "sound"),
    [
        pytest.param({}, True, id="alike"),
        pytest.param({"horizon_step": 1000}, False, id="1k steps are no prefix of 50k"),
        pytest.param({"horizon_step": 49_999}, False, id="one step less"),
        pytest.param({"schedule_family": "wsd"}, False, id="another family"),
        pytest.param({"tokens_per_step": 65_536, "horizon_step": 25_000}, True, id="as many tokens"),
        pytest.param({"tokens_per_step": 65_536, "horizon_step": 25_001}, False, id="more tokens"),
        pytest.param(
            {"warmup_steps": 100, "device": "other", "flops_per_token": 1.0}, True, id="another model"
        ),
    ],
)
def test_clause_comparable_takes_one_schedule_family_and_horizon(
    changes: dict[str, Any], sound: bool
) -> None:
    subject = curve("a", {1000: 3.0}, who=identity(**changes))
    assert (comparable(subject, control({1000: 4.0})) is None) is sound
    if not sound:
        assert promoted(case(subject, control({1000: 4.0})))["beats_control"] is INVALID


@pytest.mark.parametrize(
    ("lead", "verdict"),
    [(0.05, PASS), (0.05 - 0.9e-6, PASS), (0.05 - 1.1e-6, FAIL), (0.049, FAIL), (0.06, PASS)],
)
def test_clause_equality_passes_within_a_millionth(lead: float, verdict: Verdict) -> None:
    assert STAGE_GATE.tolerance == 1e-6
    assert promoted(beside(3.25 - lead, 3.25))["beats_control"] is verdict
    assert not 3.25 - 3.20 >= 0.05  # what floats would say
    assert promoted(beside(3.20, 3.25))["beats_control"] is PASS
    assert promoted(beside(3.20, 3.25, sigma=1.0))["beats_control"] is PASS  # the margin is 0.05 in any noise


@pytest.mark.parametrize(
    ("gap", "sigma", "verdict"),
    [
        (0.005, 0.0, PASS),
        (-0.005, 0.0, PASS),
        (0.00501, 0.0, FAIL),
        (-0.00501, 0.0, FAIL),
        (0.005, 0.00176, PASS),  # 2 * sqrt(2) * 0.00176 is 0.00498: the floor holds
        (2 * math.sqrt(2) * 0.01, 0.01, PASS),
        (2 * math.sqrt(2) * 0.01 + 1e-5, 0.01, FAIL),
    ],
)
def test_clause_same_eval_loss_is_within_the_floor_or_the_noise(
    gap: float, sigma: float, verdict: Verdict
) -> None:
    assert promoted(beside(3.25 + gap, 3.25, sigma=sigma))["same_loss"] is verdict


def balance(imbalance: float) -> dict[str, Any]:
    return {"routing": routing(imbalance=imbalance)}


CHEAP = {"flops_per_token": 1800.0, **GPU}


@pytest.mark.parametrize(
    ("mine", "theirs", "who", "verdict"),
    [
        pytest.param(balance(0.80), balance(1.00), {}, PASS, id="imbalance 20% lower"),
        pytest.param(balance(0.801), balance(1.00), {}, FAIL, id="not quite 20%"),
        pytest.param(balance(0.10), balance(0.15), {}, PASS, id="0.05 lower"),
        pytest.param(balance(0.101), balance(0.15), {}, FAIL, id="33% lower, and not quite 0.05"),
        pytest.param({"tokens_per_second": 1100.0}, {}, GPU, PASS, id="tokens/s +10%"),
        pytest.param({"tokens_per_second": 1099.9}, {}, GPU, FAIL, id="not quite +10%"),
        pytest.param({"tokens_per_second": 2000.0}, {}, {"device": "cuda: B"}, FAIL, id="on other hardware"),
        pytest.param({}, {}, CHEAP, PASS, id="FLOPs -10%"),
        pytest.param({}, {}, CHEAP | {"flops_per_token": 1800.1}, FAIL, id="not quite -10%"),
        pytest.param({"tokens_per_second": 950.0}, {}, CHEAP, PASS, id="tokens/s 5% worse"),
        pytest.param({"tokens_per_second": 949.9}, {}, CHEAP, FAIL, id="tokens/s worse by more"),
        pytest.param(balance(2.10), balance(2.00), CHEAP, PASS, id="imbalance 5% worse"),
        pytest.param(balance(2.101), balance(2.00), CHEAP, FAIL, id="imbalance worse by more"),
        pytest.param(balance(0.15), balance(0.10), CHEAP, PASS, id="imbalance 0.05 worse is noise"),
        pytest.param(balance(0.151), balance(0.10), CHEAP, FAIL, id="imbalance worse by more than 0.05"),
        pytest.param({"peak_memory_bytes": 105}, {"peak_memory_bytes": 100}, CHEAP, PASS, id="memory +5%"),
        pytest.param({"peak_memory_bytes": 106}, {"peak_memory_bytes": 100}, CHEAP, FAIL, id="memory +6%"),
    ],
)
def test_clause_meaningfully_better_in_one_and_worse_in_none(
    mine: dict[str, Any], theirs: dict[str, Any], who: dict[str, Any], verdict: Verdict
) -> None:
    subject = curve("a", {1000: 3.25}, every=mine, who=identity(**who))
    found = promoted(case(subject, control({1000: 3.25}, every=theirs, who=identity(**GPU))))
    assert found["meaningfully_better"] is verdict
    assert found["promote"] is verdict  # the loss is the same, so this decides


class TestVerdictBands:
    @pytest.mark.parametrize(
        ("drop", "band"),
        [
            (-0.01, Band.BETTER),
            (0.0, Band.EXCELLENT),
            (2.99, Band.EXCELLENT),
            (3.0, Band.GOOD),
            (6.99, Band.GOOD),
            (7.0, Band.BORDERLINE),
            (10.0, Band.BORDERLINE),
            (10.01, Band.WEAK),
        ],
    )
    def test_clause_verdict_bands_by_the_quality_drop(self, drop: float, band: Band) -> None:
        loss = 3.0 * (1 + drop / 100)
        view = band_view(loss, 3.0, parameters=50, control_parameters=100, bands=STAGE_GATE.bands)
        assert view.band is band
        assert view.quality_drop == pytest.approx(drop, abs=1e-9)
        assert view.perplexity_change == pytest.approx(100 * (math.exp(loss - 3.0) - 1))

    @pytest.mark.parametrize(
        ("parameters", "banded"), [(601, False), (600, True), (500, True), (400, True), (399, False)]
    )
    def test_clause_verdict_bands_are_for_40_to_60_percent_fewer(self, parameters: int, banded: bool) -> None:
        view = band_view(3.0, 3.0, parameters=parameters, control_parameters=1000, bands=STAGE_GATE.bands)
        assert (view.band is not None) is banded
        assert {"params_total", "params_active"} <= CompareRow.model_fields.keys()  # both are shown


class TestSeeds:
    ANCHORS = (control({1000: 4.0}, seed=0), control({1000: 4.02}, seed=1))

    def mean(self, *losses: float) -> Case:
        runs = [curve("a", {1000: loss}, seed=seed) for seed, loss in enumerate(losses)]
        return paired_case(runs, self.ANCHORS, 1000, STAGE_GATE)

    def test_clause_seeds_are_judged_on_the_paired_mean(self) -> None:
        assert promoted(self.mean(3.90, 4.02))["beats_control"] is PASS  # -0.10 and 0: -0.05
        assert promoted(self.mean(3.90, 4.021))["beats_control"] is FAIL
        gap = paired_gap(self.mean(3.90, 4.02), 1000)
        assert isinstance(gap, PairedGap)
        assert gap.seeds == 2

    def test_clause_seeds_of_the_control_say_sigma(self) -> None:
        assert self.mean(4.0, 4.0).sigma == pytest.approx(0.02 / math.sqrt(2))
        limit = 2 * math.sqrt(2) * 0.02 / math.sqrt(2)
        assert promoted(self.mean(4.0 + limit, 4.02 + limit))["same_loss"] is PASS
        assert promoted(self.mean(4.0 + limit, 4.021 + limit))["same_loss"] is FAIL

    def test_clause_seeds_alone_are_replicates(self) -> None:
        """However many evaluations one run has, and however they scatter, they say nothing about sigma."""
        many = control({500 * i: 4.0 + 0.1 * (i % 2) for i in range(1, 11)})
        runs: list[Curve] = [curve("a", {500 * i: 4.0 for i in range(1, 11)})]
        assert paired_case(runs, [many], 5000, STAGE_GATE).sigma == 0.0
        assert DOCUMENTS["stage-gate"]["sigma"] is None
