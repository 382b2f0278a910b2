"""Variants that wait for a result: the best of others, around a winner, each from step 0 in its stage."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from live_builders import (
    best_of,
    conclusion,
    config_of,
    decided,
    ends,
    events,
    finish,
    first_step,
    stage,
    stages_of,
    stop_worker,
    turns,
    waiters,
)
from worlds import World, falling

from orchestrator.protocol.exit import ExitCode
from orchestrator.protocol.kind import ConfigProblem
from orchestrator.store.database import Database

LOSSES = {"wide": -0.20, "wider": -0.10, "slow": 0.30, "next": -0.30, "more": -0.40, "late": -0.25}
SCREEN = {"base": {}, "wide": {"width": 8}, "wider": {"width": 16}, "slow": {"rate": 0.1}}


def world_of(database: Database, folder: Path, slots: int = 2, **losses: float) -> World:
    return World(database, folder / "home", slots=slots, loss=falling(LOSSES | losses))


def screen(**more: Any) -> list[dict[str, Any]]:
    """Three stages; `more` are further variants of the first."""
    return [
        stage("screen", 100, SCREEN | more),
        stage("confirm", 200, promote={"best": 2}),
        stage("long", 400, promote={"best": 1}),
    ]


def test_a_variant_waits_for_the_best_of_its_sources_and_starts_from_it(
    database: Database, tmp_path: Path
) -> None:
    world = world_of(database, tmp_path, slots=8)
    experiment = world.submit(stages=screen(next=best_of("wide", "wider", "slow", rate=0.5)))
    for _ in range(6):
        assert "next" not in ends(world, experiment)
        assert stages_of(world, experiment)[0].status == "running"
        world.turn()
    turns(world, 1)
    assert ends(world, experiment)["wide"][0] == ends(world, experiment)["base"][0] == "at_gate"
    assert waiters(world, experiment)["next"].status == "resolved"
    assert finish(world, experiment) == "succeeded"
    assert config_of(world, experiment, "next") == {"width": 8, "rate": 0.5}
    assert first_step(world, experiment, "next") == 0
    assert ends(world, experiment)["next"] == ("succeeded", "finished", 400)
    assert [d.kind for d in decided(world, experiment, "next", "promote")] == ["promote", "promote"]


def test_the_choice_is_a_decision_with_the_losses_that_it_saw(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path)
    experiment = world.submit(stages=screen(next=best_of("slow", "wide", "base", rate=0.5)), seeds=[0, 1])
    assert finish(world, experiment) == "succeeded"
    first = [d for d in decided(world, experiment, "next") if d.reason == "best_of"]
    assert [(d.step, d.stage, d.kind) for d in first] == [(0, "screen", "continue")] * 2
    assert first[0].text.startswith(
        "next starts from the config of wide: wide is the best at step 100 (wide "
    )
    assert first[0].evidence["ranked"] == ["wide", "base", "slow"]
    assert set(first[0].evidence["losses"]) == {"wide", "base", "slow"}  # type: ignore[arg-type]
    assert first[0].gate_id is not None
    assert events(world, experiment, "chosen") == [first[0].text]


def test_the_control_among_the_sources_is_a_variant_like_any_other(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, wide=0.2, wider=0.1)
    experiment = world.submit(stages=screen(next=best_of("wide", "base", "wider", rate=0.5)))
    assert finish(world, experiment) == "succeeded"
    assert config_of(world, experiment, "next") == {"width": 4, "rate": 0.5}


def test_a_chain_is_chosen_link_by_link_and_the_gate_waits_for_the_last(
    either: Database, tmp_path: Path
) -> None:
    world = world_of(either, tmp_path)
    chain = {"next": best_of("wide", "wider", rate=0.5), "more": best_of("next", "slow", width=32)}
    experiment = world.submit(stages=screen(**chain))
    assert finish(world, experiment) == "succeeded"
    assert config_of(world, experiment, "more") == {"width": 32, "rate": 0.5}
    promoted = {n for n in ends(world, experiment) if decided(world, experiment, n, "promote")}
    assert promoted == {"base", "next", "more"}


@pytest.mark.parametrize("code", [ExitCode.OUT_OF_MEMORY, ExitCode.CONFIG_ERROR])
def test_a_source_that_failed_is_left_out(either: Database, tmp_path: Path, code: ExitCode) -> None:
    world = world_of(either, tmp_path)
    experiment = world.submit(stages=screen(next=best_of("wide", "wider", rate=0.5)))
    turns(world, 1)
    while not stop_worker(world, "wide", code):
        turns(world, 1)
    assert finish(world, experiment) == "succeeded"
    assert config_of(world, experiment, "next") == {"width": 16, "rate": 0.5}
    (origin,) = [d for d in decided(world, experiment, "next") if d.reason == "best_of"]
    assert "wide" in origin.evidence["left_out"]  # type: ignore[operator]


def test_a_source_that_diverged_is_left_out(either: Database, tmp_path: Path) -> None:
    calm = falling(LOSSES)
    world = World(
        either,
        tmp_path / "home",
        loss=lambda v, seed, step: math.nan if v == "wide" and step >= 60 else calm(v, seed, step),
    )
    experiment = world.submit(stages=screen(next=best_of("wide", "wider", rate=0.5)))
    assert finish(world, experiment) == "succeeded"
    assert config_of(world, experiment, "next") == {"width": 16, "rate": 0.5}


def test_one_seed_of_a_source_that_failed_leaves_the_others(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path)
    experiment = world.submit(stages=screen(next=best_of("wide", "wider", rate=0.5)), seeds=[0, 1])
    while not stop_worker(world, "wide", ExitCode.OUT_OF_MEMORY, seed=1):
        turns(world, 1)
    assert finish(world, experiment) == "succeeded"
    assert config_of(world, experiment, "next") == {"width": 8, "rate": 0.5}
    assert {name for name in ends(world, experiment) if name.startswith("next")} == {"next", "next/1"}


def test_without_a_sound_source_the_variant_is_dropped_and_the_gate_closes(
    either: Database, tmp_path: Path
) -> None:
    world = world_of(either, tmp_path)
    chain = {"next": best_of("slow", rate=0.5), "more": best_of("next", width=32)}
    experiment = world.submit(stages=screen(**chain))
    while not stop_worker(world, "slow", ExitCode.OUT_OF_MEMORY):
        turns(world, 1)
    assert finish(world, experiment) == "succeeded"
    assert {"next", "more"}.isdisjoint(ends(world, experiment))
    rows = waiters(world, experiment)
    assert {name: row.status for name, row in rows.items()} == {"next": "dropped", "more": "dropped"}
    assert "slow: it ended before step 100" in (rows["next"].detail or "")
    assert "next" in (rows["more"].detail or "")
    assert len(events(world, experiment, "dropped")) == 2
    assert ends(world, experiment)["wide"] == ("succeeded", "finished", 400)


def test_what_would_be_the_config_of_another_variant_is_dropped_and_said(
    either: Database, tmp_path: Path
) -> None:
    world = world_of(either, tmp_path)
    experiment = world.submit(stages=screen(next=best_of("wide", "slow", width=16)))
    assert finish(world, experiment) == "succeeded"
    assert "next" not in ends(world, experiment)
    (said,) = events(world, experiment, "dropped")
    assert said.startswith("next is not trained: next starts from the config of wide")
    assert said.endswith("that is the config of wider, which is not trained again")


def test_a_config_that_the_trainer_refuses_is_dropped_and_said(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path)
    experiment = world.submit(stages=screen(next=best_of("wide", "slow", rate=0.5)))
    turns(world, 2)
    kind = world.context.trainers["builtin"]

    def refuse(config: Any) -> Any:
        if config.get("rate") == 0.5:
            raise ConfigProblem([("rate", "is too low for this width")])
        return kind.check(config)

    world.context = replace(world.context, trainers={"builtin": replace(kind, check=refuse)})
    assert finish(world, experiment) == "succeeded"
    (said,) = events(world, experiment, "dropped")
    assert "the config of wide with its overrides is refused" in said
    assert "is too low for this width" in said


def test_a_dependent_of_a_later_stage_starts_when_that_opens(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path)
    stages = [
        stage("screen", 100, SCREEN),
        stage("confirm", 200, {"late": best_of("wide", "slow", rate=0.5)}, promote={"best": 1}),
        stage("long", 400),
    ]
    experiment = world.submit(stages=stages)
    while stages_of(world, experiment)[0].status != "closed":
        turns(world, 1)
    assert waiters(world, experiment)["late"].status == "resolved"
    assert finish(world, experiment) == "succeeded"
    assert first_step(world, experiment, "late") == 0
    assert config_of(world, experiment, "late") == {"width": 8, "rate": 0.5}
    (origin,) = [d for d in decided(world, experiment, "late") if d.reason == "best_of"]
    assert (origin.stage, origin.step, origin.evidence["step"]) == ("confirm", 0, 100)
    assert ends(world, experiment)["late"] == ("succeeded", "finished", 400)


def test_a_dependent_of_a_later_stage_keeps_the_control_when_nobody_is_promoted(
    either: Database, tmp_path: Path
) -> None:
    world = world_of(either, tmp_path, wide=0.1, wider=0.2)
    stages = [
        stage("screen", 100, SCREEN),
        stage("long", 200, {"late": best_of("wide", "slow", rate=0.5)}, seeds=[0, 1]),
    ]
    experiment = world.submit(stages=stages)
    assert finish(world, experiment) == "succeeded"
    found = ends(world, experiment)
    assert {n: s[2] for n, s in found.items() if s[0] == "succeeded"} == {
        "base": 200,
        "base/1": 200,
        "late": 200,
        "late/1": 200,
    }


def test_when_the_only_newcomer_is_dropped_the_control_does_not_train_on_alone(
    either: Database, tmp_path: Path
) -> None:
    world = world_of(either, tmp_path, wide=0.1, wider=0.2)
    stages = [stage("screen", 100, SCREEN), stage("long", 200, {"late": best_of("wide", width=16)})]
    experiment = world.submit(stages=stages)
    assert finish(world, experiment) == "succeeded"
    assert ends(world, experiment)["base"][2] == 100
    assert conclusion(world, experiment).startswith("no_winner")


AROUND = [
    stage("screen", 100, SCREEN),
    stage(
        "confirm",
        200,
        around_winner={"rate": [0.25, 1.0, 0.5]},
        promote={"best": 1},
    ),
    stage("long", 400, promote={"best": 1}),
]


def test_variants_stand_around_the_winner_from_step_0(database: Database, tmp_path: Path) -> None:
    losses = LOSSES | {"rate-0.25": -0.5}
    world = World(database, tmp_path / "home", loss=falling(losses))
    experiment = world.submit(stages=AROUND)
    assert finish(world, experiment) == "succeeded"
    assert config_of(world, experiment, "rate-0.25") == {"width": 8, "rate": 0.25}
    assert first_step(world, experiment, "rate-0.25") == 0
    assert ends(world, experiment)["rate-0.25"] == ("succeeded", "finished", 400)
    assert ends(world, experiment)["rate-0.5"] == ("stopped", "not_promoted", 200)
    (origin,) = [d for d in decided(world, experiment, "rate-0.25") if d.reason == "around_winner"]
    assert origin.text == "rate-0.25 stands around wide, the best that enters confirm"
    gate = next(d for d in decided(world, experiment, "rate-0.25", "promote") if d.stage == "confirm")
    assert "at step 200" in gate.text


def test_a_level_that_is_the_winners_own_config_is_not_trained_again(
    either: Database, tmp_path: Path
) -> None:
    world = world_of(either, tmp_path)
    experiment = world.submit(stages=AROUND)
    assert finish(world, experiment) == "succeeded"
    assert "rate-1.0" not in ends(world, experiment)
    assert waiters(world, experiment)["rate-1.0"].status == "dropped"
    (said,) = events(world, experiment, "dropped")
    assert said.endswith("that is the config of wide, which is not trained again")


def test_without_a_winner_there_is_nothing_to_stand_around(either: Database, tmp_path: Path) -> None:
    world = world_of(either, tmp_path, wide=0.1, wider=0.2)
    experiment = world.submit(stages=AROUND)
    assert finish(world, experiment) == "succeeded"
    assert conclusion(world, experiment).startswith("no_winner")
    assert {row.status for row in waiters(world, experiment).values()} == {"dropped"}
    assert len(events(world, experiment, "dropped")) == 3


def test_who_of_two_equal_dependents_is_trained_does_not_hang_on_whose_sources_came_first(
    either: Database, tmp_path: Path
) -> None:
    pair = {"first": best_of("wider", width=2), "second": best_of("wide", width=2)}
    experiments = []
    for turn, name in enumerate(["wide", "wider"]):
        world = World(either, tmp_path / name, slots=8, loss=falling(LOSSES))
        experiment = world.submit(stages=screen(**pair), name=f"try-{turn}")
        while not stop_worker(world, name):
            turns(world, 1)
        assert finish(world, experiment) == "succeeded"
        experiments.append({n: row.status for n, row in waiters(world, experiment).items()})
    assert experiments[0] == experiments[1] == {"first": "resolved", "second": "dropped"}
