"""The files behind the paths of an import: of a run's folder, the newest state of its training."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.cli.errors import BadUsage

STATE = "trainer_state.json"


def read_files(paths: Sequence[Path]) -> list[tuple[str, bytes]]:
    """(path, content) of each. Raises `BadUsage` that names a path that cannot be read."""
    found = []
    for path in paths:
        file = state_of(path) if path.is_dir() else path
        found.append((str(file), _content(file)))
    return found


def state_of(folder: Path) -> Path:
    """The state that has come furthest: the folder's own, or that of its last checkpoint."""
    states = list(_states(folder))
    if not states:
        raise BadUsage(
            f"{folder}: there is no {STATE} in it, nor in a folder checkpoint-STEP below it",
            "name the file that holds the curve",
        )
    return max(states, key=_came_to)


def _states(folder: Path) -> Iterator[Path]:
    if (folder / STATE).is_file():
        yield folder / STATE
    checkpoints = [
        (int(match[1]), state)
        for state in folder.glob(f"checkpoint-*/{STATE}")
        if (match := re.fullmatch(r"checkpoint-(\d+)", state.parent.name))
    ]
    if checkpoints:
        yield max(checkpoints)[1]


def _came_to(state: Path) -> int:
    """Its step; what cannot be read is refused where it is read for good."""
    try:
        step = json.loads(_content(state))["global_step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return -1
    return step if isinstance(step, int) else -1


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise BadUsage(f"{file}: there is no such file") from None
    except OSError as error:
        raise BadUsage(f"{file}: cannot be read: {error.strerror}") from None
