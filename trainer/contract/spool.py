"""The spool: every report of an attempt, one JSON line each, on disk before it is sent."""

import os
from contextlib import suppress
from pathlib import Path
from threading import Lock

from orchestrator.protocol.report import Report
from trainer.problems import FULL


class Spool:
    """Appends reports and reads any of them back by sequence, from 1; goes on after a restart.

    A report that the disk has no room for is kept in memory, where it can be read and sent all the same, and
    goes to disk with the next one if there is room again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets = _recover(path)
        self._stream = path.open("ab", buffering=0)  # what a buffer held would be written in pieces, later
        self._held: list[bytes] = []
        self._lock = Lock()  # one thread appends, another reads what it sends
        self.full: OSError | None = None
        """Why the newest reports are in memory alone; None while all are on disk."""

    @property
    def last(self) -> int:
        """The sequence of the newest report; 0 when there is none."""
        return len(self._offsets) - 1 + len(self._held)

    def append(self, report: Report, *, durable: bool) -> None:
        """Adds `report`, whose sequence must be the next. `durable` waits until it is on disk.

        What is on disk stays whole lines whatever happens. Raises `OSError` for any trouble but a full disk.
        """
        with self._lock:
            self._held.append(report.model_dump_json(exclude_defaults=True).encode() + b"\n")
            try:
                while self._held:
                    self._write(self._held[0], durable=durable)
                    self._offsets.append(self._offsets[-1] + len(self._held.pop(0)))
            except OSError as error:
                self.full = error
                if error.errno not in FULL:
                    raise
            else:
                self.full = None

    def read(self, sequence: int) -> bytes:
        """The JSON of report `sequence`."""
        with self._lock:
            on_disk = len(self._offsets) - 1
            if sequence > on_disk:
                return self._held[sequence - on_disk - 1].rstrip(b"\n")
            start, end = self._offsets[sequence - 1], self._offsets[sequence]
        with self._path.open("rb") as stream:
            stream.seek(start)
            return stream.read(end - start).rstrip(b"\n")

    def close(self) -> None:
        self._stream.close()

    def _write(self, line: bytes, *, durable: bool) -> None:
        """The whole line, or nothing of it."""
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._stream.write(rest) :]
            if durable:
                os.fsync(self._stream.fileno())
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._stream.fileno(), self._offsets[-1])
            raise


def _recover(path: Path) -> list[int]:
    """Where the lines begin and the last one ends; a line torn by a crash is cut off."""
    offsets = [0]
    if not path.exists():
        return offsets
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            os.truncate(path, offsets[-1])
            break
        offsets.append(offsets[-1] + len(line))
    return offsets
