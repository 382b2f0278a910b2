"""What `backtest` and `calibrate` ask the service, made from options and files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cli import tables_backtest as tables
from orchestrator.cli.client import Client, Json
from orchestrator.cli.curve_table import read_curves
from orchestrator.cli.documents import read_document
from orchestrator.cli.errors import BadUsage
from orchestrator.cli.files import POLICY_ENDINGS
from orchestrator.cli.output import put
from orchestrator.cli.resolve import experiment_id


@dataclass(frozen=True)
class Asked:
    """The options of `backtest` as they were given."""

    policy: str
    against: str
    history: Sequence[str]
    stages: str | None
    best: str | None
    eligible: str
    eval_every: int | None
    sets: int
    size: str | None
    seed: int
    control: str | None
    horizon_exchange: float | None


def backtest(client: Client, asked: Asked, as_json: bool) -> None:
    put(client.post("/v1/backtests", question(client, asked)), as_json, tables.backtest)


def calibrate(
    client: Client, history: Sequence[str], policy: str | None, steps: str | None, as_json: bool
) -> None:
    body: Json = {"history": _history(client, history, None)}
    if policy is not None:
        body["policy"] = _policy(policy)
    if steps is not None:
        body["steps"] = _numbers(steps, "--steps")
    put(client.post("/v1/calibrations", body), as_json, tables.calibration)


def question(client: Client, asked: Asked) -> Json:
    """The body of a backtest. Raises `BadUsage` for an option or a file that cannot be read."""
    body: Json = {
        "policy": _policy(asked.policy),
        "against": [_policy(name.strip()) for name in asked.against.split(",") if name.strip()],
        "history": _history(client, asked.history, asked.horizon_exchange),
        "sets": asked.sets,
        "seed": asked.seed,
    }
    if asked.stages is not None:
        body["stages"] = _numbers(asked.stages, "--stages")
    if asked.best is not None:
        caps = _numbers(asked.best, "--best")
        body["promote"] = [{"best": cap, "eligible": asked.eligible} for cap in caps]
    if asked.size is not None:
        ends = _numbers(asked.size.replace(":", ","), "--size")
        if len(ends) > 2:
            raise BadUsage(f"--size: `{asked.size}` is no range: write 8:16, or one number")
        body["size"] = [ends[0], ends[-1]]
    return body | {
        name: value
        for name, value in (("eval_every", asked.eval_every), ("control", asked.control))
        if value is not None
    }


def _policy(text: str) -> str | Json:
    """A name, or the document in a file."""
    return read_document(Path(text)) if text.endswith(POLICY_ENDINGS) else text


def _history(client: Client, sources: Sequence[str], exchange: float | None) -> Json:
    """Experiments by their ids, or the curves of one table."""
    named = [name.strip() for source in sources for name in source.split(",") if name.strip()]
    files = [name for name in named if name.endswith(".csv")]
    if files and len(named) > 1:
        raise BadUsage(f"{files[0]}: a table stands alone: put its curves and those of the others in one")
    if files:
        history: Json = {"curves": read_curves(Path(files[0]))}
    else:
        history = {"experiments": [experiment_id(client, name) for name in named]}
    return history if exchange is None else history | {"horizon_exchange": exchange}


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise BadUsage(f"{option}: `{text}` is no list of whole numbers: write 500,1500,2900") from None
