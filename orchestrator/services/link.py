"""A run whose config, seed and schedule an earlier run has: it takes over that run's curve and checkpoints.

Equal configs at equal seeds give equal losses, so nothing is trained twice: what the other measured up to its
newest checkpoint before the target is copied and judged like any report, and training goes on from there.
"""

from orchestrator.domain.ids import spell
from orchestrator.domain.lifecycle import AttemptStatus, Reason
from orchestrator.services.gates import Sitting
from orchestrator.services.judge import judge
from orchestrator.services.lookup import need_run
from orchestrator.store import journal, links, reports, runs
from orchestrator.store.records import RunRecord


def link(sitting: Sitting, run_id: int) -> None:
    """Ties a new run to an equal one of another experiment, if the spec asks for it and there is one."""
    spec, connection = sitting.protocol.spec, sitting.connection
    if spec.same_config != "link":
        return
    run = need_run(connection, run_id)
    source = links.equal_run(connection, run, horizon=spec.horizon, eval_every=spec.eval_every)
    if source is None:
        return
    _stand_in(sitting, run, source)
    advance(sitting, run_id)


def _stand_in(sitting: Sitting, run: RunRecord, source: RunRecord) -> None:
    """An attempt that no worker ran: it owns what is taken over."""
    runs.add_attempt(
        sitting.connection,
        run_id=run.id,
        number=1,
        epoch=1,
        status=AttemptStatus.ENDED,
        key=f"{spell('run', run.id)}-linked",
        slots=[],
        directory="",
        token_hash=b"",
        acknowledged=0,
        resumed_from_step=0,
        step=0,
        lease_expires_at=sitting.now,
        created_at=sitting.now,
        ended_at=sitting.now,
        exit_code=0,
        reason=Reason.LINKED,
        identity=source.identity,
    )
    changes = {"linked_run_id": source.id, "epoch": 1, "identity": source.identity, "resume_at_most": 0}
    runs.change_run(sitting.connection, run, **changes)


def advance(sitting: Sitting, run_id: int) -> None:
    """Takes over as much as the run's target asks for, and says so; nothing once it has trained by itself."""
    connection = sitting.connection
    run, tried = need_run(connection, run_id), runs.attempts_of(connection, run_id)
    if run.linked_run_id is None or len(tried) != 1 or run.status.is_terminal:
        return
    upto = links.newest_checkpoint(connection, run.linked_run_id, run.target_step)
    if upto <= run.step:
        return
    links.copy_curve(connection, run.linked_run_id, run.id, tried[0].id, run.step, upto)
    source = need_run(connection, run.linked_run_id)
    text = (
        f"takes over the curve of {spell('run', source.id)} of {spell('exp', source.experiment_id)} "
        f"up to step {upto}: it has the same config, seed and schedule"
    )
    journal.add_event(connection, "linked", text, now=sitting.now, run_id=run.id)
    runs.change_run(connection, run, step=upto, resume_at_most=upto)
    for evaluation, _ in reports.load_evaluations(connection, [run.id])[run.id]:
        if evaluation.step > run.step:
            judge(connection, sitting.context, run.id, evaluation, tried[0], sitting.now)
