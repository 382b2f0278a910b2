"""A process beside the leader's: it trains its share of each step until the leader leaves."""

import signal
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING

from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.exit import ExitCode, ExitRecord
from trainer.contract.ending import account, write_exit
from trainer.problems import CheckpointProblem
from trainer.ranks import environment_rank, launch_id

if TYPE_CHECKING:
    from trainer.training import Training

WAIT_SECONDS = 5.0
"""For a follower that broke the team to write why: the leader may hear of the broken connection first."""


def follow(assignment: Assignment, prepared: "AbstractContextManager[Training]") -> ExitRecord:
    """Obeys the leader's orders; how it ended, written for the leader to read when that is not well."""
    # Until it has joined, waiting for a leader that may never come, a signal ends it at once.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with prepared as training:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the leader hears it, too, and says when to leave
            try:
                return _obey(assignment, training)
            except BaseException as error:
                return _say_why(assignment, error)  # before the team is broken by leaving it
    except BaseException as error:
        return _say_why(assignment, error)


def of_a_follower(assignment: Assignment) -> ExitRecord | None:
    """How another process of this start ended, when it says more than that the team broke."""
    until = monotonic() + WAIT_SECONDS
    while True:
        for file in sorted(Path(assignment.directory).glob(_file("*"))):
            with suppress(OSError, ValueError):
                record = ExitRecord.model_validate_json(file.read_text())
                if record.code != ExitCode.CRASHED:
                    return record
        if monotonic() > until:
            return None
        Event().wait(0.1)


def _obey(assignment: Assignment, training: "Training") -> ExitRecord:
    from trainer.resume import resume
    from trainer.team import Order

    step = resume(assignment, training).progress.step
    while (heard := training.team.hear())[0] is not Order.LEAVE:
        if heard[0] is Order.STEP:
            training.step(heard[1], detailed=heard[2])
        elif heard[1] != step:
            raise CheckpointProblem(
                f"process {training.team.rank} could read the checkpoint of step {step}, the leader that of "
                f"{heard[1]}: give all processes the same files"
            )
    return ExitRecord(code=ExitCode.FINISHED, step=step)


def _say_why(assignment: Assignment, error: BaseException) -> ExitRecord:
    record = account(error, 0)
    write_exit(Path(assignment.directory), record, _file(str(environment_rank())))
    return record


def _file(rank: str) -> str:
    return f"exit.{launch_id()}.rank{rank}.json"
