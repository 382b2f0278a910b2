"""The local engine's records: `<key>.claim` and `<key>.exit`, written by supervisors and only read here."""

import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.engines import processes
from orchestrator.engines.base import check_key

_CLAIM = ".claim"
_ENDING = ".exit"


@dataclass(frozen=True)
class Claim:
    """Who looks after a worker, since which boot, and where the worker writes."""

    boot: str
    supervisor: processes.Process
    directory: Path


class Claims:
    """The records in one directory, which is made if it is missing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, Claim] = {}  # a claim is never changed once it is there

    def claim_path(self, key: str) -> Path:
        return self._directory / (check_key(key) + _CLAIM)

    def ending_path(self, key: str) -> Path:
        return self._directory / (check_key(key) + _ENDING)

    def keys(self) -> list[str]:
        """Every key that was ever claimed here, in order."""
        names = (path.name for path in self._directory.iterdir())
        return sorted(name.removesuffix(_CLAIM) for name in names if name.endswith(_CLAIM))

    def read(self, key: str) -> Claim | None:
        """The claim on `key`, or None. Raises `OSError` or `ValueError` if it cannot be read."""
        known = self._known.get(key)
        if known is not None:
            return known
        try:
            text = self.claim_path(key).read_text()
        except FileNotFoundError:
            self._directory.stat()  # a directory that has gone away says nothing about its claims
            return None
        boot, stat, directory = text.removesuffix("\n").split("\n", 2)
        self._known[key] = Claim(boot, processes.parse(stat), Path(directory))
        return self._known[key]

    def ending(self, key: str) -> int | None:
        """The exit code, minus the signal's number, or None. Raises as `read` does."""
        try:
            with open(f"{self._directory}/{check_key(key)}{_ENDING}") as file:  # noqa: PTH123 - asked of every worker at every tick
                return int(file.read())
        except FileNotFoundError:
            os.stat(self._directory)  # noqa: PTH116 - likewise
            return None

    def drop(self, key: str) -> None:
        """Removes the records of `key`. Raises `OSError`."""
        self._known.pop(key, None)
        self.ending_path(key).unlink(missing_ok=True)
        self.claim_path(key).unlink(missing_ok=True)
