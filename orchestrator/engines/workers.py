"""What the claims and /proc together say about one worker: its state, and the processes that are its."""

from collections.abc import Sequence

from orchestrator.engines import processes
from orchestrator.engines.base import StateKind, WorkerState
from orchestrator.engines.claims import Claims

MARK = "ASSAY_WORKER"
"""In the environment of every process of a worker: the path of its claim."""


def state(claims: Claims, key: str) -> WorkerState:
    """The state of `key`'s worker. What cannot be read is unknown, never dead."""
    try:
        return _look(claims, key)
    except (OSError, ValueError) as error:
        return WorkerState(StateKind.UNKNOWN, reason=f"its record cannot be read: {error}")


def _look(claims: Claims, key: str) -> WorkerState:
    claim = claims.read(key)
    if claim is None:
        return _unsupervised(claims, key, "there is no record of it")
    code = claims.ending(key)
    if code is not None:
        return WorkerState.exited(code)
    if claim.boot != processes.boot_id():
        return WorkerState(StateKind.LOST, reason="the machine was restarted")
    if processes.is_alive(claim.supervisor):
        return WorkerState(StateKind.RUNNING)
    code = claims.ending(key)  # it may have ended between the two looks
    return _unsupervised(claims, key, "its supervisor is gone") if code is None else WorkerState.exited(code)


def _unsupervised(claims: Claims, key: str, reason: str) -> WorkerState:
    """Running as long as any process of the worker is left: nobody will write down how it ends."""
    return WorkerState(StateKind.RUNNING if members(claims, key) else StateKind.LOST, reason=reason)


def members(claims: Claims, key: str) -> list[processes.Process]:
    """The worker and what it started: all with its mark or in its session, but the supervisor."""
    claim = claims.read(key)
    is_here = claim is not None and claim.boot == processes.boot_id() and processes.is_alive(claim.supervisor)
    supervisor = claim.supervisor.pid if claim is not None and is_here else None
    mark = f"{MARK}={claims.claim_path(key)}"
    return [
        process
        for process in processes.every()
        if process.pid != supervisor
        and ((supervisor and process.session == supervisor) or processes.was_given(process.pid, mark))
    ]


def leaders(found: list[processes.Process]) -> list[processes.Process]:
    """The worker itself among its `members`: it leads its group, and none of them is its parent."""
    pids = {process.pid for process in found}
    return [process for process in found if process.pid == process.group and process.parent not in pids]


def is_gone(claims: Claims, key: str) -> bool:
    """True if no process is left, the supervisor included."""
    return state(claims, key).is_over and not members(claims, key)


def forget(claims: Claims, keys: Sequence[str]) -> int:
    """Drops the records of those of which nothing is left, by one look at all processes."""
    if not keys:
        return 0
    sessions = {process.session for process in processes.every()}
    marks = processes.values_given(MARK)
    gone = [key for key in keys if _has_left(claims, key, sessions, marks)]
    for key in gone:
        claims.drop(key)
    return len(gone)


def _has_left(claims: Claims, key: str, sessions: set[int], marks: set[str]) -> bool:
    """One that ended in the boot of today, or in an earlier one."""
    try:
        claim = claims.read(key)
    except (OSError, ValueError):
        return False
    if claim is None or str(claims.claim_path(key)) in marks:
        return False
    return claim.boot != processes.boot_id() or claim.supervisor.pid not in sessions
