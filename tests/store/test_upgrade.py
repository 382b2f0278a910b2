"""Databases of before under the code of today: upgraded whole or not at all, once, and gone on with."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from first_version import EXPERIMENT, LOSS, first_database, world_of, written
from sqlalchemy import func, inspect, select, text, update
from worlds import World

from orchestrator.domain.errors import Busy
from orchestrator.protocol.report import Phase, Report
from orchestrator.services.compare import compare
from orchestrator.services.ingest import ingest
from orchestrator.services.query import get_experiment, list_decisions, list_runs
from orchestrator.services.reconcile import tick
from orchestrator.store.database import Database
from orchestrator.store.migrate import current_revision, differences, newest_revision, upgrade
from orchestrator.store.tables import metadata

Made = Callable[[], Database]


@pytest.fixture(params=["sqlite", "postgresql"])
def first(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """The database of the first version, not upgraded yet."""
    sqlite = f"sqlite:///{tmp_path / 'assay.sqlite3'}"
    url = sqlite if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with closing(first_database(url, tmp_path)) as database:
        yield database


def decided(world: World, experiment: int) -> list[tuple[Any, ...]]:
    page = list_decisions(
        world.context, experiment_id=experiment, run_id=None, kinds=(), limit=500, cursor=None
    )
    return sorted((d.variant, d.stage, d.step, d.kind, d.reason) for d in page.items)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """What is decided on the same experiment, submitted today and never stopped."""
    home = tmp_path_factory.mktemp("calm")
    with closing(Database(f"sqlite:///{home / 'assay.sqlite3'}")) as database:
        upgrade(database)
        world = World(database, home, loss=LOSS)
        experiment = world.submit()
        assert world.run_to_end(experiment) == "succeeded"
        return decided(world, experiment)


def test_the_tables_are_those_of_today_and_no_row_is_lost(first: Database, tmp_path: Path) -> None:
    upgrade(first)
    assert current_revision(first) == newest_revision()
    assert differences(first) == []
    with first.read() as connection:
        for name, rows in written(tmp_path)["tables"].items():
            count = connection.execute(select(func.count()).select_from(metadata.tables[name]))
            assert count.scalar_one() == len(rows), name


def test_rows_of_the_first_version_are_read_today(first: Database, tmp_path: Path) -> None:
    upgrade(first)
    world = world_of(first, tmp_path, workers_live=True)
    experiment = get_experiment(world.context, EXPERIMENT)
    assert (experiment.status, [stage.status for stage in experiment.stages]) == (
        "running",
        ["closed", "running", "waiting"],
    )
    runs = list_runs(world.context, EXPERIMENT, limit=50, cursor=None).items
    assert [(run.variant, run.step) for run in runs if run.step > 100] == [("base", 120), ("wider", 120)]
    assert len(decided(world, EXPERIMENT)) == len(written(tmp_path)["tables"]["decisions"])
    assert {row.variant for row in compare(world.context, EXPERIMENT, "step").rows} >= {"wide", "wider"}


@pytest.mark.parametrize("workers_live", [True, False])
def test_the_experiment_goes_on_as_if_nothing_had_been(
    first: Database, tmp_path: Path, undisturbed: list[tuple[Any, ...]], workers_live: bool
) -> None:
    upgrade(first)
    world = world_of(first, tmp_path, workers_live=workers_live)
    assert world.run_to_end(EXPERIMENT) == "succeeded"
    assert decided(world, EXPERIMENT) == undisturbed
    runs = list_runs(world.context, EXPERIMENT, limit=50, cursor=None).items
    more = {run.variant: run.attempts for run in runs}
    assert (more["wider"] == 1) is workers_live


def test_a_worker_of_before_is_heard_and_one_word_twice_counts_once(first: Database, tmp_path: Path) -> None:
    """Its report has the shape of then: nothing that was added since."""
    upgrade(first)
    world = world_of(first, tmp_path, workers_live=True)
    (attempt, *_) = [a for a in written(tmp_path)["tables"]["attempts"] if a["status"] != "ended"]
    worker = world.workers[attempt["key"]]
    tick(world.context)
    said = {
        "epoch": attempt["epoch"],
        "sequence": attempt["acknowledged"] + 1,
        "step": 140,
        "phase": Phase.TRAINING,
        "evaluations": [json.loads(worker.evaluation(140).model_dump_json())],
    }
    answers = [ingest(world.context, attempt["id"], Report.model_validate(said)) for _ in range(2)]
    assert answers[0].acknowledged == answers[1].acknowledged == said["sequence"]
    assert answers[0].directive == answers[1].directive


def test_null_in_every_column_that_was_added_is_served(first: Database, tmp_path: Path) -> None:
    """A service of the version before writes rows beside this one: what it does not know stays NULL."""
    before = {name: columns_of(first, name) for name in written(tmp_path)["tables"]}
    upgrade(first)
    added = 0
    with first.write() as connection:
        for name, known in before.items():
            table = metadata.tables[name]
            fresh = [c for c in table.c if c.name not in known and c.nullable]
            added += len(fresh)
            if fresh:
                connection.execute(update(table).values({column.name: None for column in fresh}))
    assert added >= 8
    world = world_of(first, tmp_path, workers_live=True)
    assert world.run_to_end(EXPERIMENT) == "succeeded"


def test_what_was_added_may_be_left_out_by_the_version_before(first: Database, tmp_path: Path) -> None:
    """Expand, then contract: a column that is added is NULL by itself, or has a default in the database."""
    before = {name: columns_of(first, name) for name in written(tmp_path)["tables"]}
    upgrade(first)
    for name, known in before.items():
        assert known <= columns_of(first, name), f"{name} lost a column: services of before still use it"
        fresh = [c for c in metadata.tables[name].c if c.name not in known]
        assert [c.name for c in fresh if not c.nullable and c.server_default is None] == []


def test_postgresql_checks_no_foreign_key_for_each_point(first: Database) -> None:
    """Which took two thirds of an insert. SQLite would copy the whole table to be rid of them."""
    upgrade(first)
    with first.read() as connection:
        keys = inspect(connection).get_foreign_keys("points")
    assert len(keys) == (3 if first.is_sqlite else 0)


def columns_of(database: Database, table: str) -> set[str]:
    with database.read() as connection:
        return {column["name"] for column in inspect(connection).get_columns(table)}


def test_specs_and_assignments_of_then_lack_what_came_later(tmp_path: Path) -> None:
    """Otherwise the tests above would show nothing."""
    found = written(tmp_path)
    assert "retries" not in found["tables"]["experiments"][0]["spec"]
    assert all("memory_factor" not in assignment for assignment in found["assignments"].values())


def test_a_migration_that_fails_changes_nothing(first: Database) -> None:
    with first.write() as connection:
        connection.execute(text("CREATE TABLE leaders (name TEXT)"))  # 0003 makes one of its own
    with pytest.raises(Busy, match=r"could not be upgraded from revision 0001 .* nothing was changed"):
        upgrade(first)
    assert current_revision(first) == "0001"
    assert "held" not in columns_of(first, "experiments")
    with first.write() as connection:
        connection.execute(text("DROP TABLE leaders"))
    upgrade(first)
    assert differences(first) == []


def test_of_two_that_upgrade_at_once_one_waits(first: Database) -> None:
    """The first is held up amid its upgrade for as long as the second needs to come to the lock."""
    amid, go_on, told = threading.Event(), threading.Event(), []

    def hold(old: str, new: str) -> None:
        told.append((old, new))
        amid.set()
        assert go_on.wait(30)

    second = Database(first.url)
    threads = [threading.Thread(target=upgrade, args=(first, hold))]
    threads[0].start()
    assert amid.wait(30)
    threads.append(threading.Thread(target=upgrade, args=(second, hold)))
    threads[1].start()
    threads[1].join(0.5)
    assert threads[1].is_alive()
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert told == [("0001", newest_revision())]
    assert current_revision(second) == newest_revision()
    assert differences(second) == []
    second.close()


def test_processes_that_upgrade_at_once_all_come_through(first: Database) -> None:
    code = (
        "import sys; from orchestrator.store.database import Database\n"
        "from orchestrator.store.migrate import upgrade\n"
        "upgrade(Database(sys.argv[1]), lambda old, new: print('upgraded'))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, first.url], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert "".join(said).split() == ["upgraded"]
    assert differences(first) == []
