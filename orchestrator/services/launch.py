"""An intent row is committed first, then the engine is asked, then its handle is recorded.

Whatever breaks between two of these, the next tick takes up from the row: the key makes asking twice safe.
"""

import logging
import os
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from orchestrator.domain.ids import spell
from orchestrator.domain.lifecycle import AttemptStatus, Reason, RunStatus
from orchestrator.domain.spec_models import ExperimentSpec
from orchestrator.engines.base import EngineError, SlotKind, WorkerSpec
from orchestrator.protocol.assignment import Assignment, ServiceAddress
from orchestrator.rules.sharing import StartRun
from orchestrator.services.context import Context, token_hash
from orchestrator.services.ending import end_attempt
from orchestrator.services.lookup import need_experiment, need_run, variant_of
from orchestrator.services.protocol import protocol_of
from orchestrator.store import journal, links, runs
from orchestrator.store.records import AttemptRecord, RunRecord

log = logging.getLogger(__name__)

ASSIGNMENT_FILE = "assignment.json"


def record_intent(connection: Connection, context: Context, action: StartRun, now: datetime) -> None:
    """Commits to start a run: from here on exactly one worker of this attempt will be there."""
    run = runs.get_run(connection, action.run_id)
    if run is None or run.status is not RunStatus.PENDING or runs.live_attempt_of(connection, run.id):
        return  # a worker that was told to stop may not be gone yet
    number = len(runs.attempts_of(connection, run.id)) + 1
    run_name = spell("run", run.id)
    runs.add_attempt(
        connection,
        run_id=run.id,
        number=number,
        epoch=run.epoch + 1,
        status=AttemptStatus.INTENT,
        key=f"{run_name}-{number}",
        slots=list(action.slots),
        directory=str(context.home / "runs" / run_name / str(number)),
        token_hash=b"",
        acknowledged=0,
        step=run.step,
        lease_expires_at=now + context.limits.lease,
        created_at=now,
    )
    runs.change_run(connection, run, status=RunStatus.STARTING, epoch=run.epoch + 1, not_before=None)


def launch_intents(context: Context) -> None:
    """Starts a worker for every intent that no engine has confirmed yet."""
    with context.database.read() as connection:
        waiting = [a for a in runs.live_attempts(connection) if a.status is AttemptStatus.INTENT]
    for attempt in waiting:
        try:
            launch(context, attempt)
        except Exception:  # one attempt that cannot be launched must not hold up the others
            log.exception("attempt %s could not be launched; the next tick tries again", attempt.key)


def launch(context: Context, attempt: AttemptRecord) -> None:
    """One worker for the attempt, started now or found again; a lasting refusal of the engine ends it."""
    try:
        handle = context.engine.find(attempt.key)
        if handle is None and _is_over(context, attempt.run_id):
            _give_up(context, attempt)
            return
        if handle is None:
            handle = context.engine.submit(attempt.key, _prepare(context, attempt))
    except (EngineError, OSError) as error:
        _refused(context, attempt, error)
        return
    with context.database.write() as connection:
        runs.change_attempt(connection, attempt.id, status=AttemptStatus.LAUNCHED, handle=handle.to_json())


def _is_over(context: Context, run_id: int) -> bool:
    with context.database.read() as connection:
        return need_run(connection, run_id).status.is_terminal


def _give_up(context: Context, attempt: AttemptRecord) -> None:
    """Its run ended before any worker was started: nothing is launched for it."""
    with context.database.write() as connection:
        now = context.clock()
        end_attempt(connection, context, attempt.id, code=None, reason=Reason.USER_STOPPED, now=now)


def _refused(context: Context, attempt: AttemptRecord, error: EngineError | OSError) -> None:
    """A passing fault is tried again at the next tick, until the lease is over."""
    now = context.clock()
    passing = isinstance(error, EngineError) and (error.transient or error.ambiguous)
    if passing and now < attempt.lease_expires_at:
        return
    with context.database.write() as connection:
        end_attempt(connection, context, attempt.id, code=None, engine_error=str(error), now=now)


def _prepare(context: Context, attempt: AttemptRecord) -> WorkerSpec:
    """The attempt's directory with its assignment, and what the engine is to start there."""
    token = context.new_token()
    with context.database.write() as connection:
        runs.change_attempt(connection, attempt.id, token_hash=token_hash(token))
        assignment, argv = _assignment(connection, context, attempt, token)
    directory = Path(attempt.directory)
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / ASSIGNMENT_FILE
    _write_private(file, assignment.model_dump_json(indent=2))
    command = tuple(part.replace("{assignment}", str(file)) for part in argv)
    return WorkerSpec(command, directory, tuple(attempt.slots), assignment.threads or 1)


def _write_private(file: Path, text: str) -> None:
    """Atomically, readable by its owner alone: it holds the worker's token."""
    temporary = file.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    temporary.replace(file)


def _assignment(
    connection: Connection, context: Context, attempt: AttemptRecord, token: str
) -> tuple[Assignment, tuple[str, ...]]:
    run = need_run(connection, attempt.run_id)
    experiment = need_experiment(connection, run.experiment_id)
    variant = variant_of(connection, run)
    trainer = context.trainers.get(experiment.trainer)
    if trainer is None:
        text = f"trainer kind `{experiment.trainer}` is no longer registered on this service"
        raise EngineError(text, transient=False)
    spec = ExperimentSpec.model_validate(experiment.spec)
    earlier = [a for a in runs.attempts_of(connection, run.id) if a.number < attempt.number]
    folders = [a.directory for a in reversed(earlier) if a.directory]
    if run.linked_run_id is not None:
        folders += links.directories(connection, run.linked_run_id)
    assignment = Assignment(
        experiment_id=spell("exp", experiment.id),
        run_id=spell("run", run.id),
        attempt_id=spell("att", attempt.id),
        attempt=attempt.number,
        epoch=attempt.epoch,
        variant=variant.name,
        seed=run.seed,
        config=variant.config,
        target_step=run.target_step,
        horizon_step=spec.horizon,
        gate_steps=protocol_of(experiment).waits,
        eval_every=spec.eval_every,
        directory=attempt.directory,
        resume_from=tuple(folders),
        resume_at_most=run.resume_at_most,
        cache_directory=str(context.home / "cache"),
        threads=max(1, _threads(context, run, spec) // _processes(context, attempt)),
        processes=_processes(context, attempt),
        service=ServiceAddress(
            url=context.address(), token=token, address_file=str(context.home / "service.json")
        ),
        heartbeat_seconds=context.limits.heartbeat_seconds,
        gate_wait_seconds=context.limits.gate_wait_seconds,
    )
    return assignment, trainer.argv


def _threads(context: Context, run: RunRecord, spec: ExperimentSpec) -> int:
    """Equal for every run of an experiment, whatever is free: the thread count moves the loss."""
    cores = os.cpu_count() or 1
    return max(1, cores // len(context.engine.slots()) * spec.resources.slots)


def _processes(context: Context, attempt: AttemptRecord) -> int:
    """One for each GPU; CPU slots are threads of one process."""
    gpus = {slot.id for slot in context.engine.slots() if slot.kind is SlotKind.GPU}
    return max(1, len(gpus.intersection(attempt.slots)))


def extend_leases(context: Context) -> None:
    """At start: while the service was away no worker could renew, so none is judged by its old lease."""
    now = context.clock()
    with context.database.write() as connection:
        runs.renew_leases(connection, now + context.limits.lease)
        for attempt in runs.live_attempts(connection):
            text = f"attempt {attempt.number} was live when the service started"
            journal.add_event(connection, "adopted", text, now=now, run_id=attempt.run_id)
