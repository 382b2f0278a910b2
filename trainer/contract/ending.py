"""How a worker accounts for its end: what an error comes to, and `exit.json`."""

import logging
import os
from pathlib import Path

from orchestrator.protocol.exit import ExitCode, ExitRecord
from trainer.contract import folders
from trainer.problems import code_for

log = logging.getLogger(__name__)


def account(error: BaseException, step: int) -> ExitRecord:
    """The record of an end by `error`; the log has the traceback of one that nobody foresaw."""
    code = code_for(error)
    if code is ExitCode.CRASHED:
        log.error("crashed", exc_info=error)
    else:
        log.error("%s: %s", code.name, error)
    return ExitRecord(code=code, message=f"{error}" or type(error).__name__, step=step)


def write_exit(directory: Path, record: ExitRecord, name: str = "exit.json") -> None:
    """`exit.json`, whole or not at all; on a full disk, an unfinished checkpoint makes room for it."""
    try:
        _write(directory, record, name)
    except OSError:
        folders.remove_unfinished(directory)
        try:
            _write(directory, record, name)
        except OSError:
            log.exception("%s could not be written", name)


def _write(directory: Path, record: ExitRecord, name: str) -> None:
    building = directory / f".exit.{os.getpid()}.tmp"
    try:
        building.write_text(record.model_dump_json() + "\n")
        building.replace(directory / name)
    except OSError:
        building.unlink(missing_ok=True)
        raise
