"""Which code the service runs: its version, and the commit where it lies in a repository."""

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

from orchestrator.services.views_report import ServiceView

HERE = Path(__file__).resolve()
SECONDS = 10.0


@cache
def this_service() -> ServiceView:
    """As it was when first asked. `code` is empty for an installed package; see `Identity.code`."""
    return ServiceView(version=version("assay"), python=platform.python_version(), code=code_of(HERE))


def code_of(file: Path) -> dict[str, str]:
    """`git_commit`, and `git_diff_sha256` of what is not committed or `clean`; empty where git lacks it."""
    try:
        _git(
            file.parent, "ls-files", "--error-unmatch", file.name
        )  # tracked, and not only beneath a repository
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
