"""Processes as Linux tells of them in /proc: who is alive, who belongs to whom."""

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PROC = Path("/proc")
_GONE = (FileNotFoundError, ProcessLookupError)
_DEAD_STATES = {"Z", "X", "x"}


@dataclass(frozen=True)
class Process:
    """One line of /proc/<pid>/stat. `pid` and `started` together name it until the next boot."""

    pid: int
    parent: int
    group: int
    session: int
    started: int
    """Clock ticks between the boot and its start."""
    state: str


@cache
def boot_id() -> str:
    """The id that the kernel drew at this boot. Raises `OSError` where there is none."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def parse(stat: str) -> Process:
    """The process in a stat line. Raises `ValueError` for another text."""
    head, _, tail = stat.rpartition(")")  # the name before it may hold blanks and brackets
    fields = tail.split()
    if len(fields) < 20:
        raise ValueError("not a stat line")
    parent, group, session = (int(value) for value in fields[1:4])
    return Process(int(head.split()[0]), parent, group, session, started=int(fields[19]), state=fields[0])


def read(pid: int) -> Process | None:
    """The living process `pid`, or None: a zombie is not alive."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - asked of every worker at every tick
            process = parse(file.read())
    except _GONE:
        return None
    return None if process.state in _DEAD_STATES else process


def is_alive(process: Process) -> bool:
    """True if this very process lives, and not another one that got its pid."""
    now = read(process.pid)
    return now is not None and now.started == process.started


def every() -> Iterator[Process]:
    """All living processes that this user can see."""
    for entry in os.scandir(_PROC):
        if entry.name.isdigit() and (process := read(int(entry.name))):
            yield process


def was_given(pid: int, variable: str) -> bool:
    """True if `pid` was started with `NAME=value` in its environment; False for other users' processes."""
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except (*_GONE, PermissionError):
        return False
    return os.fsencode(variable) in environment.split(b"\0")


def values_given(variable: str) -> set[str]:
    """Every value that this variable was started with in a living process that this user can read."""
    prefix, found = os.fsencode(variable) + b"=", set()
    for process in every():
        try:
            environment = (_PROC / str(process.pid) / "environ").read_bytes()
        except (*_GONE, PermissionError):
            continue
        found |= {entry[len(prefix) :] for entry in environment.split(b"\0") if entry.startswith(prefix)}
    return {os.fsdecode(value) for value in found}


def send(processes: Iterable[Process], signum: int) -> None:
    """Each of them that still lives is sent `signum`."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.Signals(signum))
