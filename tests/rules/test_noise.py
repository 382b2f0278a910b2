"""Sigma: from the control's seeds, else what the policy says of the step."""

import pytest
from rule_builders import SCREEN, STAGE_GATE, control, curve, entrants, identity, with_rules

from orchestrator.domain.decisions import PromoteRule
from orchestrator.rules.cases import own_case, paired_case
from orchestrator.rules.conclusion import conclude
from orchestrator.rules.gate import close_stage
from orchestrator.rules.policies import sigma_at

BANDS = [
    {"sigma": 0.005, "up_to_step": 1000},
    {"sigma": 0.003, "up_to_share": 0.8},
    {"sigma": 0.0015},
]
BY_STEP = with_rules(noise=BANDS)


@pytest.mark.parametrize(
    ("step", "horizon", "sigma"),
    [
        (500, 50_000, 0.005),
        (1000, 50_000, 0.005),
        (1500, 50_000, 0.003),
        (40_000, 50_000, 0.003),
        (40_500, 50_000, 0.0015),
        (50_000, 50_000, 0.0015),
        (1000, 1000, 0.005),
        (90_000, None, 0.003),
    ],
)
def test_the_first_band_that_covers_the_step(step: int, horizon: int | None, sigma: float) -> None:
    assert sigma_at(BY_STEP, step, horizon) == sigma


def test_beyond_the_bands_the_one_number_holds_and_without_either_none() -> None:
    early = {"noise": [{"sigma": 0.005, "up_to_step": 1000}]}
    assert sigma_at(with_rules(sigma=0.002, **early), 1500, 50_000) == 0.002
    assert sigma_at(with_rules(**early), 1500, 50_000) == 0.0
    assert sigma_at(STAGE_GATE, 1500, 50_000) == 0.0


def test_the_horizon_is_the_schedules() -> None:
    late = curve("a", {40_500: 3.0}, who=identity(horizon_step=50_000))
    early = curve("a", {40_500: 3.0}, who=identity(horizon_step=500_000))
    assert own_case(late, 40_500, BY_STEP).sigma == 0.0015
    assert own_case(early, 40_500, BY_STEP).sigma == 0.003


def test_the_controls_seeds_go_before_what_the_policy_says() -> None:
    subject = curve("a", {1000: 4.0})
    one, two = control({1000: 4.0}, seed=0), control({1000: 4.02}, seed=1)
    assert paired_case([subject], [one], 1000, BY_STEP).sigma == 0.005
    assert paired_case([subject], [one, two], 1000, BY_STEP).sigma == pytest.approx(0.02 / 2**0.5)


def test_a_gate_and_the_conclusion_take_the_noise_of_their_step() -> None:
    """A gap of 0.012 is the same loss with a sigma of 0.005 (margin 0.0141), and a winner's with 0.0015."""
    runs = (control({1000: 4.0}), curve("a", {1000: 3.988}))
    outcome = close_stage(entrants(*runs), stage=SCREEN, promote=PromoteRule(best=1), policy=BY_STEP)
    judged = outcome.judgements[runs[1].run_id]
    assert judged.evidence["sigma"] == 0.005
    assert "level with the control" in conclude(runs, 1000, BY_STEP)
    assert "is the winner" in conclude(runs, 1000, with_rules(noise=[{"sigma": 0.0015}]))
