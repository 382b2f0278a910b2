"""Policies as versioned documents: recorded at the start, added by people, kept by experiments that run."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from worlds import World, falling, spec

from orchestrator.domain.errors import Conflict, Invalid, Missing
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.policies import Policy, policy_hash
from orchestrator.services.lookup import need_experiment
from orchestrator.services.policies import (
    add_policy,
    get_policy,
    known_policies,
    list_policies,
    record_shipped,
)
from orchestrator.services.preview import preview
from orchestrator.store import journal
from orchestrator.store.database import Database
from orchestrator.store.policies import list_policies as rows


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    made = World(database, tmp_path / "home", loss=falling({"wide": -0.2, "wider": -0.1, "slow": 0.3}))
    record_shipped(made.context)
    return made


def document(world: World, name: str = "race", **changes: Any) -> JsonObject:
    return {**world.context.policies[name], **changes}


def careful(version: int = 2, f0: float = 0.04) -> dict[str, Any]:
    return {"version": version, "stop": {"criterion": "outside_race", "f0": f0}}


def recorded(world: World) -> list[tuple[str, int]]:
    with world.database.read() as connection:
        return [(row.name, row.version) for row in rows(connection)]


class TestShipped:
    def test_the_shipped_ones_are_recorded_once(self, world: World) -> None:
        record_shipped(world.context)
        assert recorded(world) == [(name, 1) for name in sorted(world.context.policies)]

    def test_a_shipped_document_that_changed_under_its_version_is_said_and_not_taken(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        changed = {**world.context.policies, "race": document(world, **careful(version=1))}
        with caplog.at_level(logging.WARNING):
            record_shipped(replace(world.context, policies=changed))
        assert "policy race version 1 is recorded with another document" in caplog.text
        assert get_policy(world.context, "race").document["stop"] == world.context.policies["race"]["stop"]

    def test_a_field_that_came_later_is_no_change(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        older = {key: value for key, value in document(world).items() if key not in ("noise", "ties")}
        record_shipped(replace(world.context, policies={"race": older}))
        assert caplog.text == ""


class TestAdded:
    def test_a_new_version_is_what_its_name_means_from_then_on(self, world: World) -> None:
        view, is_new = add_policy(world.context, document(world, **careful()))
        assert is_new
        assert (view.version, view.document["stop"]["f0"]) == (2, 0.04)  # type: ignore[index,call-overload]
        known = known_policies(world.context)
        assert known["race"] == known["race@2"] == view.document
        assert known["race@1"]["version"] == 1
        assert [p.version for p in list_policies(world.context).items if p.name == "race"] == [2]

    def test_the_same_again_is_the_same_row(self, world: World) -> None:
        first, _ = add_policy(world.context, document(world, **careful()))
        again, is_new = add_policy(world.context, document(world, **careful()))
        assert (again, is_new) == (first, False)
        assert recorded(world).count(("race", 2)) == 1

    def test_another_document_under_a_taken_version_is_refused(self, world: World) -> None:
        with pytest.raises(
            Conflict, match=r"race version 1 is recorded with another document: raise `version`"
        ):
            add_policy(world.context, document(world, **careful(version=1)))
        assert recorded(world).count(("race", 1)) == 1

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"stop": {"criterion": "outside_rase"}}, "stop.criterion"),
            ({"name": "schema"}, "name"),
            ({"sigma": float("nan")}, "sigma"),
        ],
    )
    def test_a_wrong_document_names_its_fields(self, world: World, changes: Any, field: str) -> None:
        with pytest.raises(Invalid) as caught:
            add_policy(world.context, document(world) | changes)
        assert [error.field for error in caught.value.errors] == [field]

    def test_versions_that_are_not_there(self, world: World) -> None:
        with pytest.raises(Missing, match=r"no policy `rase`: did you mean `race`\?"):
            get_policy(world.context, "rase")
        with pytest.raises(Missing, match="policy race has no version 7; there is 1"):
            get_policy(world.context, "race", 7)


class TestNamedBySpecs:
    def test_by_name_by_version_and_in_the_preview(self, world: World) -> None:
        add_policy(world.context, document(world, **careful()))
        hashes = {
            name: preview(world.context, spec(policy=name)).policy.hash
            for name in ("race", "race@1", "race@2")
        }
        assert hashes["race"] == hashes["race@2"] != hashes["race@1"]
        assert hashes["race@1"] == get_policy(world.context, "race", 1).hash

    def test_a_name_that_is_not_there_is_answered_with_names_alone(self, world: World) -> None:
        with pytest.raises(
            Invalid, match=r"there is no policy `zzz`; use one of asha, calibrated, median-stop"
        ):
            preview(world.context, spec(policy="zzz"))
        with pytest.raises(Invalid, match=r"there is no policy `race@9`; did you mean `race@1`\?"):
            preview(world.context, spec(policy="race@9"))

    def test_a_running_experiment_keeps_the_revision_it_was_accepted_with(self, world: World) -> None:
        kept = get_policy(world.context, "run-all").hash
        experiment = world.submit(policy="run-all")
        add_policy(world.context, document(world, "run-all", version=2, promote={"any": []}))
        world.restart()
        world.run_to_end(experiment)
        with world.database.read() as connection:
            record = need_experiment(connection, experiment)
            decisions = journal.list_decisions(connection, experiment_id=experiment, limit=500)
        assert record.policy_hash == policy_hash(Policy.model_validate(record.policy)) == kept
        assert {row.policy_hash for row in decisions} == {kept}
        assert any(row.kind == "promote" for row in decisions)  # under version 2 nobody would be
        later = world.submit(policy="run-all", name="later")
        with world.database.read() as connection:
            assert need_experiment(connection, later).policy_hash != kept
