"""How a replay is told: exact, otherwise, or not at all."""

from typing import Any

from rich.console import Console

from orchestrator.cli import protocol_tables

OLD = {"decision_id": "dec_1", "why": "it was recorded before decisions kept what they were made from"}


def shown(**changes: Any) -> str:
    view = {
        "experiment_id": "exp_1",
        "decisions": 2,
        "reproduced": 2,
        "exact": True,
        "differences": [],
        "not_replayed": [],
    }
    console = Console(width=200)
    with console.capture() as captured:
        console.print(protocol_tables.replay(view | changes))
    return captured.get()


def test_what_came_out_exactly_is_counted() -> None:
    assert shown().strip() == "exp_1: 2 of 2 decisions made again exactly"


def test_a_log_of_which_nothing_can_be_made_again_is_not_said_to_be_exact() -> None:
    told = shown(reproduced=0, exact=False, not_replayed=[OLD, OLD]).splitlines()
    assert told == ["exp_1: nothing to replay", f"2 not made again: {OLD['why']}"]


def test_what_comes_out_otherwise_stands_beside_what_was_recorded() -> None:
    field = {"variant": "wide", "stage": "screen", "step": 100, "field": "text"}
    difference = {"decision_id": "dec_2", **field, "recorded": "a", "recomputed": "b"}
    told = shown(reproduced=1, exact=False, differences=[difference])
    assert "1 of 2 decisions made again exactly" in told
    assert "dec_2  wide at step 100 of screen: text" in told
    assert "recorded: a" in told
    assert "recomputed: b" in told
