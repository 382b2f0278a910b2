"""The sentence that an experiment ends with."""

import math
from dataclasses import replace

from rule_builders import STAGE_GATE, control, curve, identity

from orchestrator.domain.curves import Curve
from orchestrator.rules.conclusion import conclude

END = 50_000


def end_of(finished: list[Curve]) -> str:
    return conclude(finished, END, STAGE_GATE)


def test_the_best_variant_wins_when_it_is_below_the_control() -> None:
    said = end_of([control({END: 3.2}), curve("wide", {END: 3.1}), curve("deep", {END: 3.15})])
    assert said == ("wide is the winner: eval loss 3.100 is 0.100 below the control's 3.200 at step 50000")


def test_the_control_is_named_when_it_leads() -> None:
    said = end_of([control({END: 3.0}), curve("wide", {END: 3.1})])
    assert said == (
        "wide is the best variant, and the control stays ahead: eval loss 3.100 is 0.100 above the "
        "control's 3.000 at step 50000"
    )


def test_a_tie_is_no_win() -> None:
    assert "level with the control" in end_of([control({END: 3.1}), curve("wide", {END: 3.1})])


def test_a_tie_between_variants_goes_to_the_name() -> None:
    assert end_of([curve("b", {END: 3.1}), curve("a", {END: 3.1}), control({END: 4.0})]).startswith("a is")


def test_losses_are_means_over_the_seeds_that_the_control_has_too() -> None:
    curves = [
        control({END: 3.000}, seed=0),
        control({END: 3.002}, seed=1),
        curve("wide", {END: 2.900}, seed=0),
        curve("wide", {END: 2.902}, seed=1),
        curve("alone", {END: 2.800}, seed=7),
    ]
    said = end_of(curves)
    assert said.startswith("wide is the winner: mean over 2 seeds: eval loss 2.901 is 0.100 below")
    assert said.endswith("alone and the control finished no seed in common")


def test_a_seed_is_compared_with_its_twin_and_not_with_the_mean() -> None:
    curves = [control({END: 3.0}, seed=0), control({END: 3.001}, seed=1), curve("w", {END: 3.1}, seed=0)]
    assert "the control stays ahead: eval loss 3.100 is 0.100 above" in end_of(curves)


def test_a_lead_within_the_noise_of_the_seeds_is_no_win() -> None:
    curves = [
        control({END: 3.0}, seed=0),
        control({END: 3.4}, seed=1),
        curve("wide", {END: 2.8}, seed=0),
        curve("wide", {END: 3.4}, seed=1),
    ]
    assert end_of(curves).startswith("wide is the best variant, level with the control")


def test_what_is_not_comparable_wins_nothing() -> None:
    other = replace(curve("other", {END: 1.0}), identity=identity(evaluation_set="another"))
    said = end_of([control({END: 3.0}), other, curve("wide", {END: 2.9})])
    assert said.startswith("wide is the winner")
    assert "other and control are not compared: their evaluation sets differ" in said
    assert end_of([control({END: 3.0}), other]).startswith("no variant can be compared with the control")


def test_only_the_last_step_counts() -> None:
    said = end_of([control({END: 3.2}), curve("wide", {1000: 2.0}), curve("deep", {END: 3.1})])
    assert said.startswith("deep is the winner")


def test_a_control_that_did_not_finish_is_said() -> None:
    said = end_of([control({1000: 3.0}), curve("wide", {END: 3.1})])
    assert said == "wide finished, and the control did not: there is nothing to compare with"


def test_no_variant_at_the_end() -> None:
    assert end_of([]) == "no variant finished the last stage"
    assert end_of([control({END: 3.0})]) == "no variant finished the last stage"
    assert end_of([control({END: 3.0}), curve("wide", {1000: 1.0})]).startswith("no variant")


def test_a_loss_that_is_no_number_never_wins() -> None:
    broken = curve("broken", {END: math.nan})
    assert end_of([control({END: 3.2}), broken, curve("wide", {END: 3.3})]).startswith("wide is the best")
    assert end_of([control({END: 3.2}), broken]) == "no variant finished the last stage"
