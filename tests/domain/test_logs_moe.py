"""[MOE] lines: what they say becomes an evaluation's routing, and what they do not say is told."""

import math
from typing import Any

import pytest
from log_texts import read

from orchestrator.domain.logs.moe import NAMES, read_moe

EVALUATED = "{'eval_loss': 4.0, 'step': 50}\n"


def routing_of(*lines: str) -> tuple[Any, tuple[str, ...]]:
    curve = read("{'loss': 4.2, 'step': 40}\n" + "".join(f"[MOE] {line}\n" for line in lines) + EVALUATED)
    return curve.evaluations[0], tuple(note for note in curve.notes if "MOE" in note)


def test_a_line_with_all_of_it_is_kept_whole() -> None:
    line = "step=50 experts=4 entropy=0.9 entropy_worst_layer=0.8 load_min=0.1 load_max=0.4 aux_loss=1.1"
    evaluation, notes = routing_of(f"{line} aux_coef=0.01 dead=1 unknown=7 text=yes")
    assert evaluation["routing"] == {
        "num_experts": 4,
        "entropy": 0.9,
        "entropy_worst_layer": 0.8,
        "load_min": 0.1,
        "load_max": 0.4,
        "dead_experts": 1,
    }
    assert (evaluation["aux_loss"], evaluation["aux_coef"]) == (1.1, 0.01)
    assert notes == ("train.log: 1 [MOE] line; routing known at 1 of 1 evaluation",)


def test_loads_of_every_expert_say_how_many_there_are() -> None:
    evaluation, _ = routing_of("entropy: 0.9, load: [0.1, 0.2, 0.3, 0.4]")
    routing = evaluation["routing"]
    assert (routing["num_experts"], routing["load_min"], routing["load_max"]) == (4, 0.1, 0.4)


def test_an_imbalance_stands_for_the_largest_load() -> None:
    evaluation, _ = routing_of("entropy=0.9 experts=10 imbalance=0.5")
    assert evaluation["routing"]["load_max"] == pytest.approx(0.15)


def test_entropies_in_nats_are_divided_by_the_most_there_can_be() -> None:
    evaluation, notes = routing_of("experts=40 load_max=0.05 entropy=3.5")
    assert evaluation["routing"]["entropy"] == pytest.approx(3.5 / math.log(40))
    assert "divided by ln E" in notes[-1]


@pytest.mark.parametrize(
    ("line", "lacks"),
    [
        ("entropy=0.9 load_max=0.1 aux_loss=1.0", "no number of experts"),
        ("experts=4 load_max=0.3 aux=1.0", "no entropy"),
        ("experts=4 entropy=0.9 balance_loss=1.0", "no largest load"),
        ("experts=4 entropy=0.9 load_max=40 aux_loss=1.0", "no largest load"),
    ],
)
def test_what_is_missing_is_told_and_the_rest_kept(line: str, lacks: str) -> None:
    evaluation, notes = routing_of(line)
    assert "routing" not in evaluation
    assert evaluation["aux_loss"] == 1.0
    assert lacks in notes[1]


def test_the_last_line_since_the_evaluation_before_counts() -> None:
    text = "".join(
        f"{{'loss': 4.0, 'step': {step}}}\n[MOE] aux_loss={step}\n"
        + (f"{{'eval_loss': 4.0, 'step': {step}}}\n" if step in (20, 40, 41) else "")
        for step in (10, 20, 30, 40)
    )
    curve = read(text + "{'eval_loss': 4.0, 'step': 41}\n[MOE] aux_loss=99\n{'eval_loss': 3.9, 'step': 60}\n")
    assert [evaluation.get("aux_loss") for evaluation in curve.evaluations] == [20, 40, 99, None]


def test_a_line_of_the_session_before_is_not_the_next_ones() -> None:
    first = (
        "{'loss': 4.0, 'step': 50}\n{'eval_loss': 4.1, 'step': 50}\n{'loss': 4.0, 'step': 60}\n[MOE] aux=1\n"
    )
    curve = read(first + "{'eval_loss': 4.1, 'step': 50}\n{'loss': 4.0, 'step': 60}\n")
    assert "aux_loss" not in curve.evaluations[0]


def test_no_key_means_two_things() -> None:
    keys = [key for names in NAMES.values() for key in names]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("line", ["", "nothing here", "entropy=high load=[a, b]", "load=[1]", "=3 x= y"])
def test_what_is_no_number_is_passed_over(line: str) -> None:
    assert read_moe(line) == {}
