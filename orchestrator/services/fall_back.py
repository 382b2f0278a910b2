"""A checkpoint was damaged and an older one taken instead: a decision that says so, once for each attempt."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from orchestrator.domain.decisions import DecisionKind, Judgement
from orchestrator.domain.evidence import Verdict
from orchestrator.protocol.report import PassedOver, Report
from orchestrator.protocol.wire import JsonObject
from orchestrator.services.context import Context
from orchestrator.services.lookup import need_experiment
from orchestrator.store import checkpoints, experiments, journal, links
from orchestrator.store.records import AttemptRecord, RunRecord

REASON = "checkpoint_damaged"


def record_fall_back(
    connection: Connection,
    context: Context,
    run: RunRecord,
    attempt: AttemptRecord,
    report: Report,
    now: datetime,
) -> None:
    """Records from where the attempt went on instead, and marks what it could not use.

    The same attempt again adds nothing. A report that passed nothing over is none of this.
    """
    if not report.passed_over:
        return
    resumed = report.step if report.resumed_from_step is None else report.resumed_from_step
    experiment = need_experiment(connection, run.experiment_id)
    stage = experiments.get_stages(connection, [experiment.id])[run.stage]
    new = journal.add_decision(
        connection,
        key=f"run:{run.id}/fall-back-{attempt.number}",
        experiment=experiment,
        run_id=run.id,
        stage=stage.name,
        step=resumed,
        judgement=fall_back_judgement(attempt.number, resumed, report.passed_over),
        now=now,
    )
    if new:
        owners = [owner.id for owner in links.chain(connection, run.id)]
        for passed in report.passed_over:
            checkpoints.mark_damaged(connection, owners, passed.path, passed.problem)


def fall_back_judgement(number: int, resumed: int, passed_over: Sequence[PassedOver]) -> Judgement:
    """What attempt `number` did: which checkpoints it passed over, and the steps that are trained again."""
    damaged = sorted(passed_over, key=lambda passed: -passed.step)
    steps = damaged[0].step - resumed
    told = "; ".join(f"the one of step {passed.step}: {passed.problem}" for passed in damaged)
    where = f"the checkpoint of step {resumed}" if resumed else "the beginning"
    again = f", so {steps} step{'' if steps == 1 else 's'} are trained again" if steps > 0 else ""
    text = f"attempt {number} goes on from {where}{again}: a newer checkpoint is damaged ({told})"
    evidence: JsonObject = {
        "attempt": number,
        "resumed_from_step": resumed,
        "steps_again": max(0, steps),
        "passed_over": [passed.model_dump(mode="json") for passed in damaged],
    }
    return Judgement(DecisionKind.FALL_BACK, REASON, Verdict.INCONCLUSIVE, text, (), evidence)
