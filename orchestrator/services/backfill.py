"""What a worker spooled and could not deliver: read outside any transaction, taken in by slices."""

import logging
import re
from collections.abc import Generator
from contextlib import closing
from itertools import islice
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy import Connection

from orchestrator.domain.errors import AssayError
from orchestrator.domain.lifecycle import AttemptStatus
from orchestrator.protocol.report import Report
from orchestrator.services.context import Context
from orchestrator.services.ingest import take_in
from orchestrator.services.poison import is_passing
from orchestrator.store import journal, runs
from orchestrator.store.records import AttemptRecord

log = logging.getLogger(__name__)

SPOOL_FILE = "spool.jsonl"
AT_ONCE = 200
"""Reports in one transaction: between two of them others write."""

_HEAD = re.compile(rb'\s*\{"epoch":\d+,"sequence":(\d+),')
"""How a line of this project's spool begins; a line that begins otherwise is parsed to be known."""


def backfill(context: Context, attempt: AttemptRecord) -> None:
    """Takes in the reports of the attempt's spool that are not acknowledged. Torn lines are counted and said.

    A week's spool is long: no transaction waits for the disk or the parser, and one that breaks off between
    two slices goes on there at the next tick. Raises what `is_passing`.
    """
    torn = 0
    with closing(_unacknowledged(Path(attempt.directory), attempt.acknowledged)) as found:
        while slice_ := list(islice(found, AT_ONCE)):
            reports = [report for report in slice_ if report is not None]
            torn += len(slice_) - len(reports)
            if reports and not _take_in_slice(context, attempt, reports):
                break
    if torn:
        with context.database.write() as connection:
            _say(connection, context, attempt, f"{torn} torn lines in the spool were passed over")


def _unacknowledged(directory: Path, acknowledged: int) -> Generator[Report | None, None, None]:
    """The reports above that sequence, in the file's order; None for a line that is no report.

    A disk that does not answer ends it.
    """
    try:
        with (directory / SPOOL_FILE).open("rb") as lines:
            for line in lines:
                head = _HEAD.match(line)
                if not line.strip() or (head is not None and int(head[1]) <= acknowledged):
                    continue
                report = _parse(line)
                if report is None or report.sequence > acknowledged:
                    yield report
    except OSError as error:
        log.warning("the spool in %s cannot be read to its end: %s", directory, error)


def _parse(line: bytes) -> Report | None:
    try:
        return Report.model_validate_json(line)
    except ValidationError:
        return None


def _take_in_slice(context: Context, attempt: AttemptRecord, reports: list[Report]) -> bool:
    """Whether the attempt is still open afterwards."""
    with context.database.write() as connection:
        for report in reports:
            current = runs.get_attempt(connection, attempt.id)
            if current is None or current.status is AttemptStatus.ENDED:
                return False
            _take_in(connection, context, current, report)
    return True


def _take_in(connection: Connection, context: Context, attempt: AttemptRecord, report: Report) -> None:
    """A report that cannot be taken in is said, and holds up neither the others nor the end."""
    try:
        with connection.begin_nested():
            take_in(connection, context, attempt, report)
    except Exception as error:
        if is_passing(error):
            raise
        why = error.detail if isinstance(error, AssayError) else f"{type(error).__name__}: {error}"
        log.warning("report %d of %s cannot be taken in: %s", report.sequence, attempt.key, why)
        _say(connection, context, attempt, f"report {report.sequence} of the spool: {why}")


def _say(connection: Connection, context: Context, attempt: AttemptRecord, text: str) -> None:
    journal.add_event(connection, "spool", text, now=context.clock(), run_id=attempt.run_id)
