"""What workers send waits here for one writer, which commits many at once and answers when that is done."""

import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread

from sqlalchemy import Connection

from orchestrator.domain.errors import Busy, NotAllowed, StaleEpoch, TooMany
from orchestrator.protocol.report import Answer, Heartbeat, Report
from orchestrator.services.context import Context, token_hash
from orchestrator.services.ingest import Batch, authorize, calls_for_a_tick, handle

log = logging.getLogger(__name__)

AT_ONCE = 64
"""Messages in one transaction. A tick that wants to write waits for one such batch, or one taken twice."""
METRIC_IDS = "metric_ids"
KNOWN = 10_000
"""Tokens and names of metrics that are remembered; above it they are asked for again."""


@dataclass(frozen=True)
class Letter:
    """One message of a worker and the place for its answer."""

    attempt_id: int
    message: Report | Heartbeat
    token: bytes
    answer: Future[Answer] = field(default_factory=Future)


class Inbox:
    """At most `capacity` messages wait. The writer's thread begins with the first and ends with `close`."""

    def __init__(self, context: Context, capacity: int = 256) -> None:
        self._context = context
        self._capacity = capacity
        self._waiting: deque[Letter] = deque()
        self._changed = Condition()
        self._closing = False
        self._writer: Thread | None = None
        self._tokens: dict[int, bytes] = {}

    def knows(self, attempt_id: int, token: str) -> bool:
        """Whether this token was this attempt's when it was last asked for."""
        return self._tokens.get(attempt_id) == token_hash(token)

    def admit(self, attempt_id: int, token: str) -> None:
        """Asks the database for a token that is not known. Raises `NotAllowed`."""
        authorize(self._context, attempt_id, token)
        if len(self._tokens) >= KNOWN:
            self._tokens.clear()
        self._tokens[attempt_id] = token_hash(token)

    def put(self, attempt_id: int, message: Report | Heartbeat, token: str) -> Future[Answer]:
        """The answer, once it is committed, or the error of this one message.

        When the commit fails, every message of the batch has that error and none is acknowledged. Raises
        `TooMany` when the inbox is full and `Busy` when it is closed.
        """
        letter = Letter(attempt_id, message, token_hash(token))
        with self._changed:
            if self._closing:
                raise Busy("the service is stopping; nothing was written")
            if len(self._waiting) >= self._capacity:
                raise TooMany(f"{self._capacity} messages wait to be written: send this one again")
            self._waiting.append(letter)
            if self._writer is None or not self._writer.is_alive():
                self._writer = Thread(target=self._run, name="ingest", daemon=True)
                self._writer.start()
            self._changed.notify()
        return letter.answer

    def close(self) -> None:
        """Takes nothing more, and returns when all that waited has been answered."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            writer = self._writer
        if writer is not None:
            writer.join()

    def _run(self) -> None:
        while batch := self._next():
            self._write([letter for letter in batch if letter.answer.set_running_or_notify_cancel()])

    def _next(self) -> list[Letter]:
        """What waits, oldest first; nothing when the inbox is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            return [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]

    def _write(self, letters: Sequence[Letter]) -> None:
        try:
            outcomes = self._commit(letters)
        except Exception as error:
            log.warning("%d messages of workers could not be written: %s", len(letters), error)
            for letter in letters:
                letter.answer.set_exception(error)
            return
        told = list(zip(letters, outcomes, strict=True))
        if any(isinstance(o, Answer) and calls_for_a_tick(letter.message, o) for letter, o in told):
            self._context.wake()
        for letter, outcome in told:
            if isinstance(outcome, Answer):
                letter.answer.set_result(outcome)
            else:
                letter.answer.set_exception(outcome)

    def _commit(self, letters: Sequence[Letter]) -> Sequence[Answer | Exception]:
        """What each is answered. Errors are rare and savepoints are not free: they are set only once a
        message had an error, and all are taken anew."""
        try:
            with self._context.database.write() as connection:
                session = connection.info  # a server that takes over may lack the last metrics
                ids = session.pop(METRIC_IDS, {})
                batch = Batch(ids if len(ids) < KNOWN else {})
                outcomes = [self._handle(connection, letter, batch) for letter in letters]
        except _Refused as refused:
            return [refused.error] if len(letters) == 1 else self._commit_apart(letters)
        session[METRIC_IDS] = batch.metric_ids  # what was added is known once it is committed
        return outcomes

    def _commit_apart(self, letters: Sequence[Letter]) -> Sequence[Answer | Exception]:
        batch = Batch()
        with self._context.database.write() as connection:
            return [self._handle_apart(connection, letter, batch) for letter in letters]

    def _handle_apart(self, connection: Connection, letter: Letter, batch: Batch) -> Answer | Exception:
        """The answer or the error of one, whose savepoint keeps it from the others.

        Raises when more than this one is lost: the connection, or the whole transaction, as SQLite does to
        one that finds the disk full.
        """
        connection.exec_driver_sql("SAVEPOINT letter")  # `begin_nested` compiles its statement each time
        try:
            answer = self._handle(connection, letter, batch)
        except _Refused as refused:
            batch.metric_ids.clear()
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT letter")
            return refused.error
        connection.exec_driver_sql("RELEASE SAVEPOINT letter")
        return answer

    def _handle(self, connection: Connection, letter: Letter, batch: Batch) -> Answer | Exception:
        """Raises `_Refused` for an error that may have come after something was written."""
        try:
            return handle(connection, self._context, letter.attempt_id, letter.message, letter.token, batch)
        except (NotAllowed, StaleEpoch) as error:
            return error
        except Exception as error:
            if connection.invalidated:
                raise
            raise _Refused(error) from error


class _Refused(Exception):
    """One message has an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error
