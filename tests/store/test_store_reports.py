"""What workers report: written once, read back as it was, hidden and never lost."""

import math

import pytest
from sqlalchemy import Connection, func, select
from store_rows import NOW, add_attempt, add_run, evaluation, point

from orchestrator.domain.errors import Conflict
from orchestrator.store import histories, reports, runs
from orchestrator.store.database import Database
from orchestrator.store.records import RunRecord
from orchestrator.store.tables import evaluations, points


def same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def store_evaluations(connection: Connection, run: RunRecord, attempt: int, *steps: int, loss: float) -> None:
    for step in steps:
        reports.add_evaluation(
            connection, run_id=run.id, attempt_id=attempt, evaluation=evaluation(step, loss), now=NOW
        )


def count(connection: Connection, table: object) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())  # type: ignore[arg-type]


ODD = [math.nan, math.inf, -math.inf, 0.0, -1.5, 1e-300, 1.7e308, 5e-324, 0.1 + 0.2]


def test_an_evaluation_comes_back_as_it_was(database: Database) -> None:
    given = [
        evaluation(step, value, perplexity=value, grad_norm=value, aux_loss=value)
        for step, value in enumerate(ODD)
    ]
    with database.write() as connection:
        run = add_run(connection)
        own = {"run_id": run.id, "attempt_id": add_attempt(connection, run)}
        for measured in given:
            reports.add_evaluation(connection, **own, evaluation=measured, now=NOW)
    with database.read() as connection:
        found = reports.load_evaluations(connection, [run.id])[run.id]
        alone = [reports.stored_evaluation(connection, own["attempt_id"], step) for step in range(len(ODD))]
    assert [e.model_dump_json() for e, _ in found] == [e.model_dump_json() for e in given]
    assert [e and e.model_dump_json() for e in alone] == [e.model_dump_json() for e in given]
    assert all(same(e.eval_loss, value) for (e, _), value in zip(found, ODD, strict=True))


def test_points_that_are_not_finite_come_back_as_they_were(database: Database) -> None:
    batch = [point(step, value) for step, value in enumerate(ODD)]
    with database.write() as connection:
        run = add_run(connection)
        attempt = add_attempt(connection, run)
        reports.add_points(connection, run_id=run.id, attempt_id=attempt, batch=batch)
    with database.read() as connection:
        found = reports.load_series(connection, run.id, "train_loss")
    assert [step for step, _ in found] == list(range(len(ODD)))
    assert all(same(value, given) for (_, value), given in zip(found, ODD, strict=True))


def test_points_again_change_nothing_and_new_ones_are_added(database: Database) -> None:
    first = [point(1, 3.0), point(2, math.nan), point(1, 9.0, "grad_norm")]
    with database.write() as connection:
        run = add_run(connection)
        own = {"run_id": run.id, "attempt_id": add_attempt(connection, run)}
        reports.add_points(connection, **own, batch=first)
        reports.add_points(connection, **own, batch=[*first, point(3, 2.0)])
        reports.add_points(connection, **own, batch=[])
        assert count(connection, points) == 4
        assert reports.series_names(connection, run.id) == ["grad_norm", "train_loss"]


def test_another_value_of_a_point_is_refused_and_nothing_of_its_batch_stays(database: Database) -> None:
    pairs = [(3.0, 3.1), (math.nan, 0.0), (0.0, math.inf), (math.inf, -math.inf)]
    with database.write() as connection:
        run = add_run(connection)
        own = {"run_id": run.id, "attempt_id": add_attempt(connection, run)}
        stored = [point(step, value) for step, (value, _) in enumerate(pairs)]
        reports.add_points(connection, **own, batch=stored)
    for step, (_, sent) in enumerate(pairs):
        batch = [point(50, 1.0), point(step, sent), point(51, 1.0)]
        with pytest.raises(Conflict, match=f"step {step} "), database.write() as connection:
            reports.add_points(connection, **own, batch=batch)
    with database.read() as connection:
        found = reports.load_series(connection, run.id, "train_loss")
    assert [step for step, _ in found] == [0, 1, 2, 3]
    assert all(same(value, kept) for (_, value), (kept, _) in zip(found, pairs, strict=True))


def test_two_values_of_one_point_in_one_batch_are_refused(database: Database) -> None:
    with database.write() as connection:
        run = add_run(connection)
        own = {"run_id": run.id, "attempt_id": add_attempt(connection, run)}
        with pytest.raises(Conflict, match="two values of train_loss for step 1"):
            reports.add_points(connection, **own, batch=[point(1, 1.0), point(1, 2.0)])


def test_one_point_twice_in_one_batch_is_one_point(database: Database) -> None:
    with database.write() as connection:
        run = add_run(connection)
        own = {"run_id": run.id, "attempt_id": add_attempt(connection, run)}
        reports.add_points(connection, **own, batch=[point(1, math.nan), point(1, math.nan)])
        assert count(connection, points) == 1


def test_superseded_rows_are_hidden_and_kept(database: Database) -> None:
    with database.write() as connection:
        run = add_run(connection)
        first, second = add_attempt(connection, run, 1), add_attempt(connection, run, 2)
        store_evaluations(connection, run, first, 20, 40, 60, loss=3.0)
        batch = [point(step, 3.0) for step in (35, 40, 45, 60)]
        reports.add_points(connection, run_id=run.id, attempt_id=first, batch=batch)
        reports.supersede(connection, run_id=run.id, attempt_id=second, after_step=40)
        store_evaluations(connection, run, second, 60, loss=2.0)
        reports.add_points(connection, run_id=run.id, attempt_id=second, batch=[point(45, 2.0)])
        shown = reports.load_evaluations(connection, [run.id])[run.id]
        assert [(e.step, e.eval_loss, number) for e, number in shown] == [(20, 3, 1), (40, 3, 1), (60, 2, 2)]
        assert reports.load_series(connection, run.id, "train_loss") == [(35, 3.0), (40, 3.0), (45, 2.0)]
        assert count(connection, evaluations) == 4
        assert count(connection, points) == 5


def test_superseding_touches_no_other_run_and_no_newer_attempt(database: Database) -> None:
    with database.write() as connection:
        run, other = add_run(connection), add_run(connection)
        attempts = [add_attempt(connection, run, number) for number in (1, 2)]
        elsewhere = add_attempt(connection, other)
        store_evaluations(connection, run, attempts[1], 20, loss=2.0)
        store_evaluations(connection, other, elsewhere, 20, loss=2.0)
        reports.supersede(connection, run_id=run.id, attempt_id=attempts[0], after_step=0)
        found = reports.load_evaluations(connection, [run.id, other.id])
        assert {id_: len(rows) for id_, rows in found.items()} == {run.id: 1, other.id: 1}


def test_what_is_acknowledged_has_no_gap(database: Database) -> None:
    table: list[tuple[list[int], int, int]] = [
        ([], 0, 0),
        ([1, 2, 3], 0, 3),
        ([2, 3], 0, 0),
        ([1, 3, 4], 0, 1),
        ([3, 1, 2, 5], 0, 3),
        ([1, 2, 3, 4, 6], 2, 4),
        ([2**53 - 1], 0, 0),
    ]
    with database.write() as connection:
        run = add_run(connection)
        for number, (stored, known, acknowledged) in enumerate(table, start=1):
            attempt = add_attempt(connection, run, number)
            for sequence in stored:
                reports.add_report(connection, attempt, sequence, bytes([sequence % 256]) * 32)
            assert known + len(reports.held_after(connection, attempt, known)) == acknowledged
            assert all(reports.report_hash(connection, attempt, s) == bytes([s % 256]) * 32 for s in stored)
            assert reports.report_hash(connection, attempt, 99) is None


def test_a_curve_has_its_points_evaluations_and_restarts(database: Database) -> None:
    with database.write() as connection:
        run = add_run(connection, variant="wide", seed=3)
        broken = add_attempt(connection, run, 1, resumed_from_step=0)
        runs.change_attempt(connection, broken, status="ended", reason="crashed")
        left = add_attempt(connection, run, 2, resumed_from_step=20)
        runs.change_attempt(connection, left, status="ended", reason="yielded")
        last = add_attempt(connection, run, 3, resumed_from_step=40)
        store_evaluations(connection, run, last, 60, loss=2.0)
        reports.add_points(connection, run_id=run.id, attempt_id=last, batch=[point(50, 2.5)])
        curve = histories.load_curves(connection, [run])[run.id]
    assert (curve.variant, curve.seed, curve.is_control, curve.identity) == ("wide", 3, True, None)
    assert [e.step for e in curve.evaluations] == [60]
    assert curve.train_loss == ((50, 2.5),)
    assert curve.restarts == (20,)
