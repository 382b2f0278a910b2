"""A checkpoint was damaged or gone and an older one taken: a decision that says so, once for each attempt."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from orchestrator.domain.decisions import DecisionKind, Judgement
from orchestrator.domain.evidence import Verdict
from orchestrator.protocol.report import PassedOver, Report
from orchestrator.protocol.wire import JsonObject
from orchestrator.services.checkpoint_files import is_at_home
from orchestrator.services.context import Context
from orchestrator.services.lookup import need_attempt, need_experiment
from orchestrator.store import checkpoints, experiments, journal, links, runs
from orchestrator.store.records import AttemptRecord, CheckpointRow, RunRecord

DAMAGED = "checkpoint_damaged"
MISSING = "checkpoint_missing"
GONE = "it is on record, and the worker did not find it"


def record_fall_back(
    connection: Connection,
    context: Context,
    run: RunRecord,
    attempt: AttemptRecord,
    report: Report,
    now: datetime,
) -> None:
    """Of an attempt's first report: records from where it went on instead, and marks what it could not use.

    Until it has saved something newer, what lies past that step is not gone on from, were it there again. The
    same attempt again adds nothing, nor does one that went on from the newest checkpoint.
    """
    resumed = report.step if report.resumed_from_step is None else report.resumed_from_step
    owners = [owner.id for owner in links.chain(connection, run.id)]
    passed_over = [*report.passed_over, *_gone(connection, run, owners, attempt, report)]
    if not passed_over:
        return
    experiment = need_experiment(connection, run.experiment_id)
    stage = experiments.get_stages(connection, [experiment.id])[run.stage]
    new = journal.add_decision(
        connection,
        key=f"run:{run.id}/fall-back-{attempt.number}",
        experiment=experiment,
        run_id=run.id,
        stage=stage.name,
        step=resumed,
        judgement=fall_back_judgement(attempt.number, resumed, passed_over),
        now=now,
    )
    if new:
        if not run.status.is_terminal:
            runs.change_run(connection, run, resume_at_most=resumed)
        for passed in passed_over:
            checkpoints.mark_damaged(connection, owners, passed.path, passed.problem)


def _gone(
    connection: Connection, run: RunRecord, owners: Sequence[int], attempt: AttemptRecord, report: Report
) -> list[PassedOver]:
    """The newest of each earlier attempt that this one might have gone on from, and of which it says nothing.

    Older ones may have been pruned by their own worker. What a trainer keeps elsewhere is its own affair.
    """
    if report.resumed_from_step is None or attempt.resumed_from_step is not None:
        return []
    told = {passed.path for passed in report.passed_over}
    most = run.step if run.resume_at_most is None else min(run.step, run.resume_at_most)
    rows = [row for owner in owners for row in runs.checkpoints_of(connection, owner)]
    newest = {row.attempt_id: row for row in rows if row.attempt_id < attempt.id}  # ascending by step
    return [
        PassedOver(step=row.step, path=row.path, problem=GONE)
        for row in newest.values()
        if report.resumed_from_step < row.step <= most
        and row.path not in told
        and _is_at_home(connection, row)
    ]


def _is_at_home(connection: Connection, row: CheckpointRow) -> bool:
    owner = need_attempt(connection, row.attempt_id)
    return is_at_home(owner.directory, row.step, row.path)


def fall_back_judgement(number: int, resumed: int, passed_over: Sequence[PassedOver]) -> Judgement:
    """What attempt `number` did: which checkpoints it passed over, and the steps that are trained again."""
    damaged = sorted(passed_over, key=lambda passed: -passed.step)
    steps = damaged[0].step - resumed
    told = "; ".join(f"the one of step {passed.step}: {passed.problem}" for passed in damaged)
    where = f"the checkpoint of step {resumed}" if resumed else "the beginning"
    again = f", so {steps} step{'' if steps == 1 else 's'} are trained again" if steps > 0 else ""
    text = f"attempt {number} goes on from {where}{again}: a newer checkpoint cannot be used ({told})"
    evidence: JsonObject = {
        "attempt": number,
        "resumed_from_step": resumed,
        "steps_again": max(0, steps),
        "passed_over": [passed.model_dump(mode="json") for passed in damaged],
    }
    reason = MISSING if all(passed.problem == GONE for passed in damaged) else DAMAGED
    return Judgement(DecisionKind.FALL_BACK, reason, Verdict.INCONCLUSIVE, text, (), evidence)
