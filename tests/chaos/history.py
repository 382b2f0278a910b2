"""What workers and harness wrote down, read back as plain values. Times are of the monotonic clock."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FAULTS = "faults.jsonl"
"""The harness's own lines, beside the workers' files."""


@dataclass
class Step:
    """One step that was begun; `ended` is None when the worker died in it."""

    number: int
    began: float
    ended: float | None = None


@dataclass
class Told:
    """A report as the worker gave it to its reporter."""

    at: float
    evaluations: dict[int, float] = field(default_factory=dict)
    points: dict[int, float] = field(default_factory=dict)


@dataclass
class Witnessed:
    """One worker process."""

    run: int
    attempt: int
    number: int
    epoch: int
    pid: int
    began: float
    escaped: bool = False
    steps: list[Step] = field(default_factory=list)
    told: dict[int, Told] = field(default_factory=dict)
    """By sequence."""
    acknowledged: dict[int, float] = field(default_factory=dict)
    """When each report was answered with 200, or covered by an answer."""
    stale_at: float | None = None
    """When it was answered that another attempt holds the lease."""

    @property
    def last_step(self) -> int:
        return max((step.number for step in self.steps), default=0)

    @property
    def acknowledged_step(self) -> int:
        """The newest step whose evaluation is acknowledged."""
        told = [self.told[sequence] for sequence in self.acknowledged if sequence in self.told]
        return max((step for report in told for step in report.evaluations), default=0)


@dataclass(frozen=True)
class Fault:
    """One fault that was given."""

    kind: str
    at: float
    about: str = ""
    pid: int = 0
    """Of the worker that was stopped or killed; 0 for a fault of something else."""


@dataclass(frozen=True)
class Woken:
    """A worker process that was stopped from `stopped` to `woken`."""

    pid: int
    stopped: float
    woken: float
    zombie: bool = False


@dataclass
class History:
    workers: list[Witnessed] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    pauses: list[Woken] = field(default_factory=list)


def read_history(folder: Path) -> History:
    """Everything in the folder. A last line that was torn by a kill is left out."""
    history = History()
    for file in sorted(folder.glob("att_*.jsonl")):
        if (worker := read_worker(file)) is not None:
            history.workers.append(worker)
    for line in _lines(folder / FAULTS):
        kind = line.pop("record")
        if kind == "fault":
            history.faults.append(Fault(**line))
        else:
            history.pauses.append(Woken(**line))
    return history


def read_worker(file: Path) -> Witnessed | None:
    """What one worker process wrote, or None if it had not begun."""
    lines = _lines(file)
    if not lines:
        return None
    began = lines[0]
    worker = Witnessed(
        run=_number(began["run"]),
        attempt=_number(began["attempt"]),
        number=began["number"],
        epoch=began["epoch"],
        pid=began["pid"],
        began=began["at"],
        escaped=began["escaped"],
    )
    for line in lines[1:]:
        _add(worker, line)
    return worker


def _add(worker: Witnessed, line: dict[str, Any]) -> None:
    at = line["at"]
    match line["kind"]:
        case "step":
            worker.steps.append(Step(line["step"], at))
        case "stepped":
            worker.steps[-1].ended = at
        case "told":
            evaluations = {int(step): value for step, value in line["evaluations"].items()}
            points = {int(step): value for step, value in line["points"].items()}
            worker.told[line["sequence"]] = Told(at, evaluations, points)
        case "acknowledged":
            for sequence in {line["sequence"], *range(1, line["upto"] + 1)} - {0}:
                worker.acknowledged.setdefault(sequence, at)
        case "stale":
            worker.stale_at = worker.stale_at or at


def _number(spelled: str) -> int:
    return int(spelled.rpartition("_")[2])


def _lines(file: Path) -> list[dict[str, Any]]:
    try:
        text = file.read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
