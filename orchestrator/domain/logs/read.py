"""Files of any known format as one curve: the one way in for an import."""

import json
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.domain.logs.live_sessions import read_live_log
from orchestrator.domain.logs.mixture import refuse_disagreement, refuse_mixture
from orchestrator.domain.logs.sessions import Loss, Measured, Session, counted, in_order, merge
from orchestrator.domain.logs.steps import Choices
from orchestrator.domain.logs.tables import Found, read_csv, read_jsonl
from orchestrator.domain.logs.thin import thin
from orchestrator.domain.logs.trainer_state import read_trainer_state
from orchestrator.protocol.wire import JsonObject

Format = Literal["huggingface", "live-log", "csv", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)
MOST_TRAIN_LOSSES = 5000


@dataclass(frozen=True)
class LogCurve:
    """One run's curve as its files have it. Evaluations and training losses ascend by step."""

    format: Format
    evaluations: tuple[JsonObject, ...]
    """Each with `step`, `eval_loss` and the other fields of an evaluation that the log knows."""
    train_loss: tuple[Loss, ...]
    horizon_step: int | None
    """The step that the schedule was sized to, where the files say so."""
    notes: tuple[str, ...]
    """What was dropped, thinned or taken for something else: sentences for a person."""


def read_logs(
    files: Sequence[tuple[str, bytes]], choices: Choices, format_: Format | None = None
) -> LogCurve:
    """The curve in the files of one run, given as (name, content); without a format it is found.

    Several files are its sessions. Raises `Invalid` that names file, line, column or option for what cannot
    be read, for files of more than one run, and for a curve without a finite evaluation.
    """
    choices.check()
    if not files:
        raise Invalid([FieldError("PATH", "give at least one file or folder")])
    kinds = [format_ or find_format(name, data) for name, data in files]
    if len(set(kinds)) > 1:
        named = ", ".join(f"{name} is {kind}" for (name, _), kind in zip(files, kinds, strict=True))
        raise Invalid([FieldError("PATH", f"files of one run are of one format, and {named}")])
    read = [_read(name, data, kinds[0], choices) for name, data in files]
    for sessions, _, _ in read:
        refuse_mixture(sessions)
    ordered = in_order([sessions for sessions, _, _ in read])
    refuse_disagreement(ordered)
    merged, dropped = merge(ordered)
    horizons = {horizon for _, horizon, _ in read if horizon is not None}
    notes = [note for _, _, notes in read for note in notes] + dropped
    return _curve(kinds[0], files, merged, horizons.pop() if len(horizons) == 1 else None, notes)


def _read(name: str, data: bytes, kind: Format, choices: Choices) -> Found:
    if kind == "live-log":
        sessions, notes = read_live_log(name, data, choices)
        return sessions, None, notes
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text = f"is not UTF-8 text (byte {error.start} cannot be read)"
        raise Invalid([FieldError(name, text)]) from None
    if kind == "huggingface":
        sessions, horizon = read_trainer_state(name, text)
        return sessions, horizon, []
    return (read_csv if kind == "csv" else read_jsonl)(name, text, choices)


def find_format(name: str, data: bytes) -> Format:
    """The format of a file, by its name and then by how it begins. Raises `Invalid` when neither says it."""
    lowered = name.lower()
    if lowered.endswith(".csv"):
        return "csv"
    if lowered.endswith((".jsonl", ".ndjson")):
        return "jsonl"
    if lowered.endswith("trainer_state.json"):
        return "huggingface"
    if b"'loss'" in data or b"'eval_loss'" in data:
        return "live-log"
    if lowered.endswith(".json"):
        return "huggingface"
    first = data[:4096].lstrip().split(b"\n", 1)[0]
    if _is_object(first):
        return "jsonl"
    if b"," in first and b"loss" in first:
        return "csv"
    raise Invalid([FieldError(name, f"its format is not known: say --format {'|'.join(FORMATS)}")])


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _curve(
    kind: Format, files: Sequence[tuple[str, bytes]], merged: Session, horizon: int | None, notes: list[str]
) -> LogCurve:
    _refuse_empty(", ".join(name for name, _ in files), merged)
    kept = thin(merged.losses, MOST_TRAIN_LOSSES)
    if len(kept) < len(merged.losses):
        of = f"of {counted(len(merged.losses), 'training loss', 'training losses')}"
        notes.append(f"{len(kept):,} {of} are kept, evenly spaced")
    return LogCurve(
        format=kind,
        evaluations=tuple(_evaluations(merged)),
        train_loss=tuple(kept),
        horizon_step=horizon,
        notes=(*notes, *_about(merged)),
    )


def _refuse_empty(names: str, merged: Session) -> None:
    if not merged.evaluations:
        losses = counted(len(merged.losses), "training loss", "training losses")
        text = f"no evaluation was found ({losses}): a reference needs eval losses (`eval_loss`)"
        raise Invalid([FieldError(names, text)])
    if not any(math.isfinite(measured.eval_loss) for measured in merged.evaluations):
        text = (
            f"none of the {len(merged.evaluations)} eval losses is finite: there is nothing to compare with"
        )
        raise Invalid([FieldError(names, text)])


def _evaluations(merged: Session) -> list[JsonObject]:
    """With the mean training loss since the evaluation before, as a worker reports it."""
    found: list[JsonObject] = []
    start = 0
    for measured in merged.evaluations:
        end = bisect_right(merged.losses, measured.step, lo=start, key=lambda loss: loss[0])
        mean = sum(loss for _, loss in merged.losses[start:end]) / max(1, end - start)
        known: JsonObject = {"train_loss": mean} if end > start and math.isfinite(mean) else {}
        found.append({"step": measured.step, "eval_loss": measured.eval_loss} | known | measured.values)
        start = end
    return found


def _about(merged: Session) -> list[str]:
    """What a person should know before they compare with it."""
    notes = []
    broken = [measured.step for measured in merged.evaluations if not math.isfinite(measured.eval_loss)]
    if broken:
        what = counted(len(broken), "eval loss is", "eval losses are")
        notes.append(
            f"{what} not finite, the first at step {broken[0]}: kept as they are, never compared with"
        )
    losses = [step for step, loss in merged.losses if not math.isfinite(loss)]
    if losses:
        what = counted(len(losses), "training loss is", "training losses are")
        notes.append(f"{what} not finite, the first at step {losses[0]}: kept as they are")
    if len(merged.evaluations) == 1:
        only: Measured = merged.evaluations[0]
        notes.append(
            f"one evaluation: it compares at step {only.step} alone, since nothing can be interpolated"
        )
    return notes
