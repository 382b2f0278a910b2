"""An intent row is committed first, then the engine is asked, then its handle is recorded.

Whatever breaks between two of these, the next tick takes up from the row: the key makes asking twice safe.
"""

import os
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from orchestrator.domain.ids import spell
from orchestrator.domain.lifecycle import AttemptStatus, Reason, RunStatus
from orchestrator.domain.spec_models import ExperimentSpec
from orchestrator.engines.base import EngineError, Handle, WorkerSpec, processes_on
from orchestrator.protocol.assignment import Assignment, ServiceAddress
from orchestrator.rules.sharing import StartRun
from orchestrator.services.context import Context, token_hash
from orchestrator.services.ending import end_attempt
from orchestrator.services.lookup import need_attempt, need_experiment, need_run, variant_of
from orchestrator.services.outage import due, wait
from orchestrator.services.poison import guarded, is_passing
from orchestrator.services.protocol import protocol_of
from orchestrator.services.vigil import put_off
from orchestrator.store import links, runs
from orchestrator.store.records import AttemptRecord, RunRecord

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
    """Starts a worker for every intent that no engine has confirmed; without room or an engine they wait."""
    with context.database.read() as connection:
        waiting = runs.intents(connection)
    if context.watch.is_short:
        put_off(context, waiting)
        return
    for attempt in due(context, waiting):
        try:
            launch(context, attempt)
        except Exception as error:  # one attempt that cannot be launched must not hold up the others
            with guarded(context, f"attempt {attempt.key}"):
                _park(context, attempt, error)


def launch(context: Context, attempt: AttemptRecord) -> None:
    """One worker for the attempt, started now or found again; a lasting refusal of the engine ends it."""
    try:
        handle = context.engine.find(attempt.key)
        if not attempt.token_hash and (handle is not None or _is_used(attempt)):
            _not_ours(context, attempt, handle)
            return
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


def _is_used(attempt: AttemptRecord) -> bool:
    """Whether something lies in a directory that this attempt has not come to yet."""
    directory = Path(attempt.directory)
    return directory.is_dir() and any(directory.iterdir())


def _not_ours(context: Context, attempt: AttemptRecord, handle: Handle | None) -> None:
    """Another worker had the key before: the database is older than the machine, a backup perhaps.

    That worker is made to go, and what it wrote is not resumed from: rows do not know of it.
    """
    text = (
        f"the key {attempt.key} was in use before this attempt was begun, as after restoring an older "
        "database: its worker is ended, and the next number is taken"
    )
    with context.database.write() as connection:
        now = context.clock()
        noted = {"handle": handle.to_json()} if handle is not None else {}
        runs.change_attempt(connection, attempt.id, directory="", **noted)
        reason = Reason.STALE_EPOCH
        end_attempt(connection, context, attempt.id, code=None, reason=reason, message=text, now=now)
    context.wake()


def _is_over(context: Context, run_id: int) -> bool:
    with context.database.read() as connection:
        return need_run(connection, run_id).status.is_terminal


def _give_up(context: Context, attempt: AttemptRecord) -> None:
    """Its run ended before any worker was started: nothing is launched for it."""
    with context.database.write() as connection:
        now = context.clock()
        end_attempt(connection, context, attempt.id, code=None, reason=Reason.USER_STOPPED, now=now)
    context.wake()


def _refused(context: Context, attempt: AttemptRecord, error: EngineError | OSError) -> None:
    """Only a lasting refusal says something of the attempt. Whatever else stands in the way will pass.

    A start that may have been carried out waits, too: the same key finds its worker.
    """
    if isinstance(error, EngineError) and not (error.transient or error.ambiguous):
        _end_unstarted(context, attempt, str(error))
    else:
        wait(context, attempt, error)


def _park(context: Context, attempt: AttemptRecord, error: Exception) -> None:
    """An error that nobody foresaw is tried again, too, and then told as the run's own."""
    if is_passing(error) or context.clock() < attempt.lease_expires_at:
        raise error
    _end_unstarted(context, attempt, f"{type(error).__name__}: {error}")


def _end_unstarted(context: Context, attempt: AttemptRecord, error: str) -> None:
    """Ends an attempt without a handle. If a start was asked for, the engine may have carried it out:

    until it says that there is no such worker, the attempt keeps its slots.
    """
    with context.database.write() as connection:
        current = need_attempt(connection, attempt.id)
        if current.token_hash and current.handle is None:
            handle = Handle(context.engine.name, attempt.key).to_json()
            runs.change_attempt(connection, attempt.id, handle=handle)
        end_attempt(connection, context, attempt.id, code=None, engine_error=error, now=context.clock())
    context.wake()


def _prepare(context: Context, attempt: AttemptRecord) -> WorkerSpec:
    """The attempt's directory with its assignment, and what the engine is to start there."""
    file = Path(attempt.directory) / ASSIGNMENT_FILE
    _need_checkpoints(context, attempt)
    token = _written_token(file, attempt) or context.new_token()
    with context.database.write() as connection:
        runs.change_attempt(connection, attempt.id, token_hash=token_hash(token))
        assignment, argv = _assignment(connection, context, attempt, token)
    file.parent.mkdir(parents=True, exist_ok=True)
    written = _write_private(file, assignment.model_dump_json(indent=2), token)
    try:
        with context.database.write():  # under the lead: who lost it leaves the new leader's file alone
            written.replace(file)
    finally:
        written.unlink(missing_ok=True)
    command = tuple(part.replace("{assignment}", str(file)) for part in argv)
    return WorkerSpec(command, file.parent, tuple(attempt.slots), assignment.threads or 1)


def _need_checkpoints(context: Context, attempt: AttemptRecord) -> None:
    """Raises `OSError` while the attempt of the newest checkpoint has no folder, as when a disk is away.

    A worker that sees no checkpoint begins anew.
    """
    with context.database.read() as connection:
        run = need_run(connection, attempt.run_id)
        directory = links.newest_directory(connection, run.id, _resume_at_most(run))
    if directory and not Path(directory).is_dir():
        fix = "mount its disk, put the folder back, or make it anew, empty, to go on without it"
        raise FileNotFoundError(f"{directory} has the newest checkpoint of {spell('run', run.id)}: {fix}")


def _written_token(file: Path, attempt: AttemptRecord) -> str | None:
    """The token of an earlier try: a worker that comes late of it can still be heard."""
    try:
        told = Assignment.model_validate_json(file.read_bytes()).service
    except (OSError, ValueError):
        return None
    is_same = told is not None and token_hash(told.token) == attempt.token_hash
    return told.token if told is not None and is_same else None


def _write_private(file: Path, text: str, token: str) -> Path:
    """Beside the file, under a name of its own, readable by its owner alone: it holds the token."""
    temporary = file.with_suffix(f".{token_hash(token).hex()[:12]}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    return temporary


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
    processes = processes_on(context.engine, attempt.slots)
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
        resume_at_most=_resume_at_most(run),
        cache_directory=str(context.home / "cache"),
        threads=max(1, _threads(context, run, spec) // processes),
        processes=processes,
        memory_factor=run.memory_factor,
        service=ServiceAddress(
            url=context.address(), token=token, address_file=str(context.home / "service.json")
        ),
        heartbeat_seconds=context.limits.heartbeat_seconds,
        gate_wait_seconds=context.limits.gate_wait_seconds,
    )
    return assignment, trainer.argv


def _resume_at_most(run: RunRecord) -> int:
    """No checkpoint past what is known of the run: a worker that lost its lease may have saved others,

    and what it measured on the way there was refused.
    """
    return run.step if run.resume_at_most is None else min(run.step, run.resume_at_most)


def _threads(context: Context, run: RunRecord, spec: ExperimentSpec) -> int:
    """Equal for every run of an experiment, whatever is free: the thread count moves the loss."""
    cores = os.cpu_count() or 1
    return max(1, cores // len(context.engine.slots()) * spec.resources.slots)
