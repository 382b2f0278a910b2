"""Starting a supervisor, and waiting until the key is claimed."""

import os
import select
import subprocess
import sys
from collections.abc import Mapping
from typing import IO, cast

from orchestrator.engines import supervisor
from orchestrator.engines.base import LOG_FILE, EngineError, WorkerSpec
from orchestrator.engines.claims import Claims

_START_SECONDS = 30.0


def start(claims: Claims, key: str, spec: WorkerSpec, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A supervisor in a new session that will try to claim `key`; its output is a pipe until it has."""
    program = [sys.executable, "-I", "-S", supervisor.__file__]
    records = [str(claims.claim_path(key)), str(claims.ending_path(key))]
    directory = spec.directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [*program, *records, str(directory / LOG_FILE), *spec.argv],
        cwd=directory,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def hear(child: subprocess.Popen[bytes]) -> str:
    """What the supervisor says until it lets go of the pipe: then the key is claimed, or it has ended."""
    said = b""
    with cast(IO[bytes], child.stdout) as pipe:
        news = select.poll()
        news.register(pipe, select.POLLIN)
        while news.poll(_START_SECONDS * 1000):
            chunk = os.read(pipe.fileno(), 4096)
            if not chunk:
                return said.decode(errors="replace").strip()
            said += chunk
    raise EngineError("the worker's supervisor is slow to start", ambiguous=True)
