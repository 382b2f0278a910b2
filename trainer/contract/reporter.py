"""Reports to the service: spooled first, then posted in order by a thread that never stops the training.

The loop calls `emit`, `progress` and `directive`; none of them waits for the network.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from threading import Condition, Thread
from time import monotonic
from typing import Any

from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.exit import ExitRecord
from orchestrator.protocol.report import Answer, Directive, Heartbeat, Phase, Report
from trainer.contract.http import Response, ServiceConnection, Unreachable
from trainer.contract.pace import Pace
from trainer.contract.spool import Spool

log = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0
TRANSIENT = (408, 425, 429)
"""Besides 5xx: the same request may succeed later."""


class Reporter:
    """Spools and posts the reports of one attempt; keeps the newest answer for the loop to read."""

    def __init__(self, assignment: Assignment) -> None:
        self._epoch = assignment.epoch
        self._path = f"/v1/attempts/{assignment.attempt_id}"
        self._spool = Spool(Path(assignment.directory) / "spool.jsonl")
        self._interval = assignment.heartbeat_seconds
        self._changed = Condition()
        self._next = 1  # the sequence to send next
        self._refused: set[int] = set()
        self._rewound: set[int] = set()
        self._phase = Phase.STARTING
        self.step = 0
        self._speed: float | None = None
        self._directive: Directive | None = None
        self._answers = 0
        self._answered_at = monotonic()
        self._pace = Pace(monotonic())
        self._closing = False
        self.stale = False
        """The service said that another attempt holds the lease."""
        self._thread: Thread | None = None
        if assignment.service is not None:
            self._connection = ServiceConnection(assignment.service)
            self._thread = Thread(target=self._run, name="reporter", daemon=True)
            self._thread.start()

    # --- the loop's side ----------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """There is a service to ask, whether or not it answers."""
        return self._thread is not None

    @property
    def full(self) -> OSError | None:
        """Why the newest reports could not be spooled: they are in memory alone until there is room."""
        return self._spool.full

    def emit(self, phase: Phase, step: int, **parts: Any) -> int:
        """Spools a report and hands it to the sender; returns its sequence."""
        with self._changed:
            sequence = self._spool.last + 1
            report = Report(epoch=self._epoch, sequence=sequence, phase=phase, step=step, **parts)
            durable = bool(report.evaluations or report.checkpoints or report.exit)
            self._spool.append(report, durable=durable)
            self._phase, self.step = phase, step
            self._changed.notify_all()
            return sequence

    def progress(self, step: int, tokens_per_second: float | None) -> None:
        """What the next heartbeat says."""
        self._phase, self.step, self._speed = Phase.TRAINING, step, tokens_per_second

    def directive(self) -> Directive | None:
        """The newest directive; None before the first answer."""
        return self._directive

    def wait_for_answer(
        self, sequence: int, interval: float, patience: float, interrupted: Callable[[], bool]
    ) -> Directive | None:
        """At a gate: the first directive given after report `sequence` arrived that is not to wait.

        Asks every `interval` seconds. None when the service was silent for `patience` seconds, when
        `interrupted`, or when the lease is another's.
        """
        with self._changed:
            usual, self._interval = self._interval, interval
            self._changed.notify_all()
            since = monotonic()
            seen: int | None = None
            try:
                while not (
                    self.stale or interrupted() or monotonic() - max(since, self._answered_at) > patience
                ):
                    if seen is None and self._next > sequence:
                        seen = self._answers - (sequence not in self._refused)
                    if seen is not None and self._answers > seen and self._directive is not None:
                        if self._decided(self._directive):
                            return self._directive
                        seen = self._answers
                    self._changed.wait(min(interval, 0.25))
                return None
            finally:
                self._interval = usual

    def close(self, record: ExitRecord) -> None:
        """Spools the last report, waits a little for it to arrive, and leaves the rest in the spool."""
        self.emit(Phase.ENDED, record.step, exit=record)
        with self._changed:
            if self._thread is not None and not self.stale:
                self._pace.hurried = True
                self._changed.notify_all()
                self._changed.wait_for(
                    lambda: self.stale or self._next > self._spool.last, timeout=FLUSH_SECONDS
                )
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=1.0)
        self._spool.close()

    def _decided(self, directive: Directive) -> bool:
        kind = directive.kind.value
        return kind in ("stop", "yield") or (kind == "continue" and directive.target_step > self.step)

    # --- the sender's side ------------------------------------------------------------------------------

    def _run(self) -> None:
        while (turn := self._turn()) is not None:
            report = turn > 0
            try:
                wait = self._post(turn if report else None)
            except Unreachable as error:
                log.warning("the service is out of reach, training goes on: %s", error)
                self._pace.failed(monotonic(), report=report, reached=False)
            except Exception:
                log.exception("reporting failed, training goes on")
                self._pace.failed(monotonic(), report=report, reached=True)
            else:
                if wait is None:
                    self._pace.taken(monotonic(), report=report)
                else:
                    self._pace.failed(monotonic(), report=report, reached=True, wait=wait)

    def _turn(self) -> int | None:
        """Waits until something is due: the sequence of a report, 0 for a heartbeat, None at the end."""
        with self._changed:
            while not (self._closing or self.stale):
                at, is_report = self._pace.due(self._interval, waiting=self._next <= self._spool.last)
                if (seconds := at - monotonic()) <= 0:
                    return self._next if is_report else 0
                self._changed.wait(seconds)
            return None

    def _post(self, sequence: int | None) -> float | None:
        """Sends one report, or a heartbeat; seconds to wait before the same again, None when done."""
        response = self._send_beat() if sequence is None else self._send_report(sequence)
        if response.status == 200:
            self._accept(Answer.model_validate_json(response.body), sequence)
            return None
        if _is_passing(response):
            log.warning("the service answered %d, asking again", response.status)
            return response.retry_after or 0.0
        self._refuse(response, sequence)
        return None

    def _send_beat(self) -> Response:
        beat = Heartbeat(epoch=self._epoch, phase=self._phase, step=self.step, tokens_per_second=self._speed)
        return self._connection.post(f"{self._path}/heartbeat", beat.model_dump_json().encode())

    def _send_report(self, sequence: int) -> Response:
        """The answer to it, or to what is sent instead of one that is refused for good: no gap may stay."""
        line = self._spool.read(sequence)
        response = self._connection.post(f"{self._path}/reports", line)
        if response.status == 200 or _is_passing(response) or _is_stale(response):
            return response
        why = f"{response.status} {_problem(response.body)}".strip()
        log.error("the service refused report %d (kept in the spool): %s", sequence, why)
        return self._connection.post(f"{self._path}/reports", _instead(line, why))

    def _accept(self, answer: Answer, sequence: int | None) -> None:
        with self._changed:
            if sequence is not None:
                self._next = sequence + 1
            self._rewind(answer.acknowledged)
            self._directive, self._answered_at = answer.directive, monotonic()
            self._answers += 1
            self._changed.notify_all()

    def _rewind(self, acknowledged: int) -> None:
        """Goes back to the first report that the service lacks; once per place, so no hole can trap it."""
        missing = [s for s in range(acknowledged + 1, self._next) if s not in self._refused]
        if missing and missing[0] not in self._rewound:
            self._rewound.add(missing[0])
            log.info("the service lacks report %d, sending again from there", missing[0])
            self._next = missing[0]
        elif acknowledged >= self._next:
            self._next = min(acknowledged, self._spool.last) + 1

    def _refuse(self, response: Response, sequence: int | None) -> None:
        with self._changed:
            if _is_stale(response):
                log.error("another attempt holds the lease: leaving")
                self.stale = True
            else:
                what = "a heartbeat" if sequence is None else f"also what stood in for report {sequence}"
                problem = _problem(response.body)
                log.error("the service refused %s with %d: %s", what, response.status, problem)
                if sequence is not None:
                    self._refused.add(sequence)
                    self._next = sequence + 1
            self._changed.notify_all()


def _instead(line: bytes, why: str) -> bytes:
    """What closes the gap that a refused report leaves: it has happened, and measured nothing."""
    report = Report.model_validate_json(line)
    note = f"report {report.sequence} was refused ({why}): what it measured is in the worker's spool alone"
    kept = ("epoch", "sequence", "phase", "step", "resumed_from_step", "exit")
    short = Report(notes=(note,), **{name: getattr(report, name) for name in kept})
    return short.model_dump_json(exclude_defaults=True).encode()


def _is_passing(response: Response) -> bool:
    return response.status in TRANSIENT or response.status >= 500


def _is_stale(response: Response) -> bool:
    return response.status == 409 and "stale_epoch" in _problem(response.body)


def _problem(body: bytes) -> str:
    """The `type` and `code` of a problem document; empty when the body is none."""
    try:
        problem = json.loads(body)
        return " ".join(str(problem[name]) for name in ("type", "code") if name in problem)
    except (ValueError, TypeError):
        return ""
