"""The spool: every report of an attempt, one JSON line each, on disk before it is sent."""

import os
from pathlib import Path

from orchestrator.protocol.report import Report


class Spool:
    """Appends reports and reads any of them back by sequence, from 1; goes on after a restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets = _recover(path)
        self._stream = path.open("ab")

    @property
    def last(self) -> int:
        """The sequence of the newest line; 0 when there is none."""
        return len(self._offsets) - 1

    def append(self, report: Report, *, durable: bool) -> None:
        """Adds `report`, whose sequence must be the next. `durable` waits until it is on disk."""
        line = report.model_dump_json(exclude_defaults=True).encode() + b"\n"
        self._stream.write(line)
        self._stream.flush()
        if durable:
            os.fsync(self._stream.fileno())
        self._offsets.append(self._offsets[-1] + len(line))

    def read(self, sequence: int) -> bytes:
        """The JSON of report `sequence`."""
        start, end = self._offsets[sequence - 1], self._offsets[sequence]
        with self._path.open("rb") as stream:
            stream.seek(start)
            return stream.read(end - start).rstrip(b"\n")

    def close(self) -> None:
        self._stream.close()


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
