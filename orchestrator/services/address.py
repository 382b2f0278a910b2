"""`service.json` in the data folder: where workers and the command line find the service."""

import json
import os
from pathlib import Path

FILE = "service.json"


class AddressFile:
    """The file, as one service process writes it. Of several that share a folder the leader keeps it."""

    def __init__(self, home: Path, url: str, pid: int) -> None:
        self.file = home / FILE
        self._text = json.dumps({"url": url, "pid": pid})

    def keep(self) -> None:
        """The file names this service, written atomically if it did not: it is read at any time."""
        if self._is_own():
            return
        temporary = self.file.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(self._text)
        temporary.replace(self.file)

    def remove(self) -> None:
        """Takes the file away, unless another service is named in it by now."""
        if self._is_own():
            self.file.unlink(missing_ok=True)

    def _is_own(self) -> bool:
        try:
            return self.file.read_text() == self._text
        except OSError:
            return False
