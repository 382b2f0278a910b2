"""Runs, attempts, decisions and lists: what may change, and what never does."""

from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from store_rows import NOW, add_attempt, add_experiment, add_run, add_stage, get_run

from orchestrator.domain.decisions import DecisionKind, Judgement
from orchestrator.domain.errors import IllegalTransition
from orchestrator.domain.evidence import CriterionResult, Verdict
from orchestrator.domain.lifecycle import AttemptStatus, ExperimentStatus, Reason, RunStatus
from orchestrator.store import experiments, journal, runs
from orchestrator.store.database import Database
from orchestrator.store.tables import experiments as experiments_table
from orchestrator.store.tables import idempotency


def test_a_change_of_a_run_is_guarded_by_the_status_it_was_read_with(database: Database) -> None:
    with database.write() as connection:
        stale = add_run(connection)
        runs.change_run(connection, stale, status=RunStatus.STARTING)
        with pytest.raises(IllegalTransition, match="no longer pending"):
            runs.change_run(connection, stale, step=5)
        with pytest.raises(IllegalTransition, match="no longer pending"):
            runs.change_run(connection, stale, status=RunStatus.CANCELLED)
        assert get_run(connection, stale.id).status is RunStatus.STARTING


def test_a_status_that_may_not_follow_is_refused(database: Database) -> None:
    with database.write() as connection:
        run = add_run(connection)
        with pytest.raises(IllegalTransition, match="pending cannot become running"):
            runs.change_run(connection, run, status=RunStatus.RUNNING)
        assert get_run(connection, run.id) == run


def test_a_terminal_status_never_changes(database: Database) -> None:
    with database.write() as connection:
        for status in [status for status in RunStatus if status.is_terminal]:
            run = add_run(connection, status=status)
            for then in [then for then in RunStatus if then is not status]:
                with pytest.raises(IllegalTransition):
                    runs.change_run(connection, run, status=then)
            assert get_run(connection, run.id).status is status


def test_a_person_can_open_a_stopped_run_again(database: Database) -> None:
    with database.write() as connection:
        run = add_run(connection, status=RunStatus.STOPPED, reason=Reason.NOT_PROMOTED, ended_at=NOW)
        runs.reopen_run(connection, run, stage=1, target_step=200)
        opened = get_run(connection, run.id)
    assert (opened.status, opened.reason, opened.ended_at) == (RunStatus.PENDING, None, None)
    assert (opened.stage, opened.target_step) == (1, 200)


def test_an_attempt_that_ended_never_changes(database: Database) -> None:
    with database.write() as connection:
        id_ = add_attempt(connection, add_run(connection))
        assert runs.change_attempt(connection, id_, status=AttemptStatus.ENDED, reason="lost", ended_at=NOW)
        before = runs.get_attempt(connection, id_)
        assert not runs.change_attempt(connection, id_, status=AttemptStatus.LAUNCHED, step=9, reason=None)
        runs.renew_leases(connection, NOW + timedelta(hours=1), NOW)
        assert runs.get_attempt(connection, id_) == before


def test_only_the_exit_code_of_an_attempt_is_noted_afterwards_and_once(database: Database) -> None:
    with database.write() as connection:
        run = add_run(connection)
        id_ = add_attempt(connection, run, handle={"engine": "fake"})
        runs.change_attempt(connection, id_, status=AttemptStatus.ENDED)
        assert [a.id for a in runs.unseen_ends(connection)] == [id_]
        runs.note_exit_code(connection, id_, -9)
        runs.note_exit_code(connection, id_, 0)
        found = runs.get_attempt(connection, id_)
        assert found is not None
        assert found.exit_code == -9
        assert runs.unseen_ends(connection) == []


def test_live_attempts_are_those_that_have_not_ended(database: Database) -> None:
    with database.write() as connection:
        run = add_run(connection)
        first = add_attempt(connection, run, 1)
        runs.change_attempt(connection, first, status=AttemptStatus.ENDED)
        second = add_attempt(connection, run, 2, status=AttemptStatus.INTENT, slots=["cpu:1", "cpu:0"])
        (live,) = runs.live_attempts(connection)
        assert (live.id, live.slots, live.token_hash) == (second, ["cpu:1", "cpu:0"], bytes(32))
        assert runs.live_attempt_of(connection, run.id) == live
        assert [a.id for a in runs.attempts_of(connection, run.id)] == [first, second]
        assert runs.count_attempts(connection, [run.id, 10**9]) == {run.id: 2}


def test_leases_that_begin_anew_are_equal(database: Database) -> None:
    with database.write() as connection:
        run = add_run(connection)
        short = add_attempt(connection, run, 1, lease_expires_at=NOW)
        long = add_attempt(connection, run, 2, lease_expires_at=NOW + timedelta(hours=2))
        assert runs.renew_leases(connection, NOW + timedelta(hours=1), NOW) == 2
        live = runs.live_attempts(connection)
    assert {a.id: a.lease_expires_at - NOW for a in live} == dict.fromkeys([short, long], timedelta(hours=1))
    assert {a.progress_at for a in live} == {NOW}


def test_an_attempt_has_one_number_and_one_key(database: Database) -> None:
    with database.write() as connection:
        run = add_run(connection)
        add_attempt(connection, run)
    for changes in ({"key": "another"}, {"number": 2, "key": f"run_{run.id}-1"}):
        with pytest.raises(IntegrityError), database.write() as connection:
            add_attempt(connection, run, **{"number": 1, **changes})  # type: ignore[arg-type]


def test_the_same_checkpoint_again_is_left_as_it_was(database: Database) -> None:
    with database.write() as connection:
        run = add_run(connection)
        own = {"run_id": run.id, "attempt_id": add_attempt(connection, run), "created_at": NOW}
        for path, step in (("a", 40), ("b", 20), ("c", 40)):
            runs.add_checkpoint(
                connection, **own, step=step, path=path, manifest_sha256="0" * 64, size_bytes=2**40
            )
        found = runs.checkpoints_of(connection, run.id)
    assert [(row.step, row.path, row.size_bytes) for row in found] == [(20, "b", 2**40), (40, "a", 2**40)]


def judged(text: str) -> Judgement:
    part = CriterionResult("part", Verdict.PASS, "a part", measured=0.05, threshold=None)
    whole = CriterionResult("whole", Verdict.FAIL, "the whole", parts=(part,))
    return Judgement(DecisionKind.DECLINE, "not_promoted", Verdict.FAIL, text, (whole,), {"gap": 0.1})


def test_the_first_decision_under_a_key_stands(database: Database) -> None:
    with database.write() as connection:
        run = add_run(connection)
        experiment = experiments.get_experiment(connection, run.experiment_id)
        assert experiment is not None
        shared = {"experiment": experiment, "run_id": run.id, "stage": "screen", "step": 100, "now": NOW}
        assert journal.add_decision(connection, key="k", judgement=judged("first"), **shared)  # type: ignore[arg-type]
        assert not journal.add_decision(connection, key="k", judgement=judged("second"), **shared)  # type: ignore[arg-type]
        (decision,) = journal.list_decisions(connection, run_id=run.id)
    assert (decision.text, decision.author, decision.policy_name) == ("first", "policy", "stage-gate")
    assert decision.criteria[0]["parts"][0]["measured"] == 0.05  # type: ignore[index,call-overload]
    assert decision.evidence == {"gap": 0.1}


def test_experiments_are_paged_newest_first(database: Database) -> None:
    with database.write() as connection:
        ids = [add_experiment(connection, name=f"e{index % 2}").id for index in range(5)]
        page = experiments.list_experiments(connection, limit=2)
        following = experiments.list_experiments(connection, limit=2, before=page[-1].id)
        assert [e.id for e in [*page, *following]] == ids[:0:-1]
        assert [e.id for e in experiments.list_experiments(connection, name="e1")] == [ids[3], ids[1]]
        assert experiments.list_experiments(connection, status="failed") == []
        assert [e.id for e in experiments.open_experiments(connection)] == ids


def test_decisions_and_events_are_paged_oldest_first(database: Database) -> None:
    with database.write() as connection:
        run = add_run(connection)
        for index in range(4):
            journal.add_event(connection, "note", f"{index}", now=NOW, run_id=run.id)
        journal.add_event(connection, "elsewhere", "", now=NOW)
        first = journal.list_events(connection, experiment_id=run.experiment_id, limit=3)
        rest = journal.list_events(connection, experiment_id=run.experiment_id, after=first[-1].id)
        assert [event.text for event in [*first, *rest]] == ["0", "1", "2", "3"]
        assert journal.list_decisions(connection, after=0, kinds=["promote"]) == []


def test_ending_and_closing_happen_once(database: Database) -> None:
    with database.write() as connection:
        experiment = add_experiment(connection)
        stage = add_stage(connection, experiment)
        add_stage(connection, experiment, 1)
        ends = [
            experiments.end_experiment(connection, experiment.id, status=status, conclusion=status, now=NOW)
            for status in (ExperimentStatus.SUCCEEDED, ExperimentStatus.FAILED)
        ]
        closes = [experiments.close_stage(connection, stage, conclusion=c, now=NOW) for c in "ab"]
        assert ends == closes == [True, False]
        found = experiments.get_experiment(connection, experiment.id)
        assert found is not None
        assert (found.status, found.conclusion) == ("succeeded", "succeeded")
        assert [s.conclusion for s in experiments.get_stages(connection, [experiment.id])] == ["a", None]


def test_an_idempotency_key_is_remembered_with_its_body(database: Database) -> None:
    with database.write() as connection:
        id_ = add_experiment(connection).id
        experiments.remember_key(connection, key="k", body_sha256="b" * 64, experiment_id=id_, now=NOW)
        assert experiments.recall_key(connection, "k") == ("b" * 64, id_)
        assert experiments.recall_key(connection, "other") is None
        assert connection.execute(select(idempotency.c.created_at)).scalar_one() == NOW


def test_text_with_a_nul_is_stored_without_it(database: Database) -> None:
    with database.write() as connection:
        run = add_run(connection)
        journal.add_event(connection, "note", "a\x00b", now=NOW, run_id=run.id)
        runs.change_run(connection, run, status=RunStatus.FAILED, detail="\x00why")
        (event,) = journal.list_events(connection, experiment_id=run.experiment_id)
        assert event.text == "a\ufffdb"
        assert get_run(connection, run.id).detail == "\ufffdwhy"
        assert connection.execute(select(experiments_table.c.question)).scalar_one() == ""
