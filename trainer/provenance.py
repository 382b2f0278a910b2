"""What a run rests on beside its config: the code of the trainer, and the packages under it."""

import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("assay", "torch", "transformers", "datasets", "tokenizers", "safetensors", "numpy")
HERE = Path(__file__).resolve()
SECONDS = 10.0


def versions(cuda: str | None = None) -> dict[str, str]:
    """Of Python and of each of the packages that is installed; `cuda` as the tensor library was built for."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | ({"cuda": cuda} if cuda else {})


def code_of(file: Path = HERE) -> dict[str, str]:
    """`git_commit`, and `git_diff_sha256` or `clean`; empty where git is missing or does not track `file`.

    The hash is that of what `git diff HEAD --binary` prints, so a patch that was kept can be found again.
    A package installed somewhere beneath a repository is not tracked by it, and not taken for its code.
    """
    try:
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        commit = _git(file.parent, "rev-parse", "HEAD").decode().strip()
        diff = _git(file.parent, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv")
    except (OSError, subprocess.SubprocessError):
        return {}
    state = {"git_diff_sha256": hashlib.sha256(diff).hexdigest()} if diff else {"clean": "true"}
    return {"git_commit": commit} | state


def _git(folder: Path, *words: str) -> bytes:
    argv = ["git", "-C", str(folder), *words]
    around = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        argv, check=True, capture_output=True, timeout=SECONDS, stdin=subprocess.DEVNULL, env=around
    )
    return done.stdout
