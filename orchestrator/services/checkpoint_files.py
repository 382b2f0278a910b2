"""Checkpoint folders as the service sees them: read to verify, and removed inside the data folder alone.

`trainer/contract/folders.py` writes them: `<attempt>/checkpoints/step-00001000/manifest.json` and its files.
"""

import json
import shutil
from contextlib import suppress
from hashlib import file_digest
from pathlib import Path

FOLDER = "checkpoints"
MANIFEST = "manifest.json"


def folder_of(directory: str, step: int) -> Path:
    """Where an attempt with this directory has its checkpoint of `step`."""
    return Path(directory) / FOLDER / f"step-{step:08d}"


def is_at_home(directory: str, step: int, path: str) -> bool:
    """Whether a checkpoint is in its attempt's own directory. A trainer may keep its own elsewhere."""
    return path == str(folder_of(directory, step))


def damage_of(path: Path, *, hashes: bool) -> str | None:
    """How the files differ from what their manifest says; None when they do not. Sizes alone are quick."""
    try:
        files = json.loads((path / MANIFEST).read_text())["files"]
        for name, expected in files.items():
            if (size := (path / name).stat().st_size) != expected["size"]:
                return f"{name} has {size} bytes, not {expected['size']}"
            if hashes and _sha256(path / name) != expected["sha256"]:
                return f"{name} does not have the manifest's SHA-256"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its manifest or a file is missing or damaged ({type(error).__name__})"
    return None


def manifest_sha256(path: Path) -> str | None:
    """Of the manifest itself, or None when it cannot be read."""
    with suppress(OSError):
        return _sha256(path / MANIFEST)
    return None


def is_own(home: Path, path: Path) -> bool:
    """Whether `path` lies under the runs of this data folder, with no link on the way to it."""
    runs = home / "runs"
    try:
        parts = path.relative_to(runs).parts
    except ValueError:
        return False
    if not parts or ".." in parts:
        return False
    steps = [runs.joinpath(*parts[:n]) for n in range(len(parts) + 1)]
    return not any(step.is_symlink() for step in steps)


def remove(home: Path, path: Path) -> bool:
    """Whether the checkpoint at `path` is gone. Its name goes first, so that half of one is taken for none.

    Nothing is touched outside the runs of the data folder, and no link is followed.
    """
    if not is_own(home, path):
        return False
    doomed = path.with_name(f".{path.name}.old.tmp")
    with suppress(OSError):
        path.rename(doomed)
    for left in (doomed, path):
        shutil.rmtree(left, ignore_errors=True)
    return not path.exists()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()
