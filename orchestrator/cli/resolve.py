"""From what a person types to an id: `exp_1`, `last` or a name; `run_3`, `EXP/variant` or `variant`."""

import re
from collections.abc import Sequence

from orchestrator.cli.client import Client, Json
from orchestrator.cli.errors import BadUsage, Unknown
from orchestrator.cli.sentences import no_experiment

LAST = "last"


def experiment_id(client: Client, text: str) -> str:
    """The id that `text` names: an id, `last`, or the newest experiment of that name."""
    if re.fullmatch(r"exp_\d+", text):
        return text
    return str(_newest(client, text)["id"])


def _newest(client: Client, text: str) -> Json:
    """The service lists the newest first."""
    if text == LAST:
        found = client.get("/v1/experiments", limit=1)["items"]
        if not found:
            raise Unknown(no_experiment())
    else:
        found = client.get("/v1/experiments", name=text, limit=1)["items"]
        if not found:
            raise Unknown(f"there is no experiment named `{text}`: `assay ls` shows those that are")
    newest: Json = found[0]
    return newest


def run_id(client: Client, text: str) -> str:
    """The id that `text` names. Raises `BadUsage` when several runs go by it."""
    if re.fullmatch(r"run_\d+", text):
        return text
    experiment, variant, seed = split_run(text)
    runs = client.items(f"/v1/experiments/{experiment_id(client, experiment)}/runs")
    return str(pick_run(runs, variant, seed, text)["id"])


def split_run(text: str) -> tuple[str, str, int | None]:
    """`EXP/variant/seed` in its parts; without an experiment the newest is meant."""
    parts = text.split("/")
    if len(parts) > 3 or not all(parts):
        raise BadUsage(f"`{text}` names no run: write run_3, EXP/variant or EXP/variant/seed")
    if len(parts) == 1:
        return LAST, parts[0], None
    if len(parts) == 2:
        return parts[0], parts[1], None
    if not parts[2].isdecimal():
        raise BadUsage(f"`{parts[2]}` in `{text}` is no seed: a seed is a whole number")
    return parts[0], parts[1], int(parts[2])


def pick_run(runs: Sequence[Json], variant: str, seed: int | None, text: str) -> Json:
    """The one run of this variant, and of this seed if one is given."""
    found = [run for run in runs if run["variant"] == variant and seed in (None, run["seed"])]
    if not found:
        names = ", ".join(sorted({str(run["variant"]) for run in runs})) or "none yet"
        raise Unknown(f"there is no run `{text}`; the variants are: {names}")
    if len(found) > 1:
        seeds = ", ".join(str(run["seed"]) for run in found)
        raise BadUsage(f"`{text}` has several seeds ({seeds}): write EXP/{variant}/SEED")
    return found[0]
