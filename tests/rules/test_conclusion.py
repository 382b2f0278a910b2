"""The sentence that an experiment ends with."""

import math

from rule_builders import control, curve

from orchestrator.rules.conclusion import conclude

END = 50_000


def test_the_best_variant_wins_when_it_is_below_the_control() -> None:
    said = conclude([control({END: 3.2}), curve("wide", {END: 3.1}), curve("deep", {END: 3.15})], END)
    assert said == "wide is the winner: eval loss 3.100 at step 50000, 0.100 below the control's 3.200"


def test_the_control_is_named_when_it_leads() -> None:
    said = conclude([control({END: 3.0}), curve("wide", {END: 3.1})], END)
    assert said == (
        "wide is the best variant, and the control stays ahead: eval loss 3.100 at step 50000, "
        "0.100 above the control's 3.000"
    )


def test_a_tie_is_no_win() -> None:
    assert "the control stays ahead" in conclude([control({END: 3.1}), curve("wide", {END: 3.1})], END)


def test_a_tie_between_variants_goes_to_the_name() -> None:
    assert conclude([curve("b", {END: 3.1}), curve("a", {END: 3.1}), control({END: 4.0})], END).startswith(
        "a is"
    )


def test_losses_are_means_over_seeds() -> None:
    curves = [
        control({END: 3.0}, seed=0),
        control({END: 3.4}, seed=1),
        curve("wide", {END: 2.8}, seed=0),
        curve("wide", {END: 3.4}, seed=1),
        curve("lucky", {END: 3.15}, seed=0),
    ]
    said = conclude(curves, END)
    assert said.startswith(
        "wide is the winner: eval loss 3.100 at step 50000, 0.100 below the control's 3.200"
    )


def test_only_the_last_step_counts() -> None:
    said = conclude([control({END: 3.2}), curve("wide", {1000: 2.0}), curve("deep", {END: 3.1})], END)
    assert said.startswith("deep is the winner")


def test_a_control_that_did_not_finish_is_said() -> None:
    said = conclude([control({1000: 3.0}), curve("wide", {END: 3.1})], END)
    assert said == "wide finished with eval loss 3.100 at step 50000; the control did not finish"


def test_no_variant_at_the_end() -> None:
    assert conclude([], END) == "no variant finished the last stage"
    assert conclude([control({END: 3.0})], END) == "no variant finished the last stage"
    assert conclude([control({END: 3.0}), curve("wide", {1000: 1.0})], END).startswith("no variant")


def test_a_loss_that_is_no_number_never_wins() -> None:
    broken = curve("broken", {END: math.nan})
    assert conclude([control({END: 3.2}), broken, curve("wide", {END: 3.3})], END).startswith(
        "wide is the best"
    )
    assert conclude([control({END: 3.2}), broken], END) == "no variant finished the last stage"
