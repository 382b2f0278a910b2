"""The commands that change something: submit a spec, and what a person decides."""

import getpass
import hashlib
import json
import re
import secrets
from pathlib import Path

from orchestrator.cli.client import Client, Json
from orchestrator.cli.documents import Document
from orchestrator.cli.files import read_spec
from orchestrator.cli.output import put_json, say
from orchestrator.cli.resolve import experiment_id, run_id


def submit(client: Client, file: Path, name: str | None) -> Json:
    """The experiment that the service made of the spec in `file`, under another name if one is given."""
    spec = read_spec(file)
    if name is not None:
        spec["name"] = name
    return client.post("/v1/experiments", spec, key=idempotency_key(spec))


def idempotency_key(spec: Document) -> str:
    """New for every submission: the same spec twice is two experiments, one lost reply is not."""
    content = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    return f"{content[:32]}-{secrets.token_hex(16)}"


def act_on_experiment(client: Client, experiment: str, verb: str, reason: str, as_json: bool = False) -> None:
    id_ = experiment_id(client, experiment)
    found = client.post(f"/v1/experiments/{id_}/{verb}", signed(reason))
    _said(found, f"{found['id']} ({found['name']}) is {found['status']}", as_json)


def pin(client: Client, experiment: str, reference: str, reason: str, as_json: bool = False) -> None:
    id_ = experiment_id(client, experiment)
    body = {**signed(reason), "reference": reference}
    found = client.post(f"/v1/experiments/{id_}/reference", body)
    _said(
        found, f"{found['reference']} stands in for the control of {found['id']} ({found['name']})", as_json
    )


def act_on_run(client: Client, run: str, verb: str, reason: str, as_json: bool = False) -> None:
    found = client.post(f"/v1/runs/{run_id(client, run)}/{verb}", signed(reason))
    status = str(found["status"]).replace("_", " ")
    place = f"{found['stage']}, step {found['step']:,} of {found['target_step']:,}"
    _said(found, f"{found['id']} ({found['variant']}) is {status} ({place})", as_json)


def _said(found: Json, sentence: str, as_json: bool) -> None:
    put_json(found) if as_json else say(sentence)


def signed(reason: str) -> Json:
    """A person's reason with the name they are logged in by, where the service would take that name."""
    try:
        author = getpass.getuser()
    except (OSError, KeyError):
        author = ""
    if re.fullmatch(r"[A-Za-z0-9._@-]{1,60}", author):
        return {"reason": reason, "author": author}
    return {"reason": reason}
