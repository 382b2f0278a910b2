"""Dockerfile, compose file and systemd unit, without a container: structure, settings, paths, versions."""

import configparser
import json
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import typer.main
import yaml
from doc_pages import ROOT, read

from orchestrator.api.app import create_app
from orchestrator.bootstrap import STOP_SECONDS
from orchestrator.cli.main import app
from orchestrator.keeper import BAD_SETTINGS, PATIENCE_SECONDS
from orchestrator.settings import Settings

COMPOSE: dict[str, Any] = yaml.safe_load(read("docker-compose.yml"))
SERVICE: dict[str, Any] = COMPOSE["services"]["assay"]
UNIT = read("deploy/assay.service")
DOCKERFILE = read("Dockerfile").replace("\\\n", " ")
TEXTS = {"type": "array", "items": {"type": "string"}}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["services", "volumes"],
    "properties": {
        "name": {"type": "string"},
        "volumes": {"type": "object"},
        "services": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["image", "environment", "healthcheck", "volumes", "restart"],
                "properties": {
                    "image": {"type": "string", "pattern": r"^[a-z]+:\d[\w.-]*$"},
                    "build": {"type": "string"},
                    "init": {"type": "boolean"},
                    "command": TEXTS,
                    "stop_grace_period": {"type": "string", "pattern": r"^\d+s$"},
                    "restart": {"enum": ["unless-stopped", "always", "on-failure", "no"]},
                    "depends_on": {"type": "object"},
                    "hostname": {"type": "string"},
                    "environment": {"type": "object", "additionalProperties": {"type": "string"}},
                    "ports": TEXTS,
                    "volumes": TEXTS,
                    "healthcheck": {
                        "type": "object",
                        "required": ["test", "interval", "timeout", "retries"],
                        "properties": {"test": TEXTS, "retries": {"type": "integer"}},
                    },
                },
            },
        },
    },
}


def filled(text: str, given: dict[str, str]) -> str:
    """`${NAME}`, `${NAME:-default}` and `${NAME:?message}` as compose fills them. Raises `KeyError`."""

    def fill(match: re.Match[str]) -> str:
        name, default = match[1], match[3] if match[2] == ":-" else None
        return given[name] if default is None else given.get(name) or default

    return re.sub(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", fill, text)


def environment(**given: str) -> dict[str, str]:
    return {name: filled(value, given) for name, value in SERVICE["environment"].items()}


@cache
def served_paths() -> set[str]:
    return set(create_app(None).openapi()["paths"])  # type: ignore[arg-type]  # the description needs no context


def test_the_structure_is_that_of_a_compose_file() -> None:
    jsonschema.validate(COMPOSE, SCHEMA)
    assert COMPOSE["services"].keys() == {"postgres", "assay"}
    used = {mount.split(":")[0] for service in COMPOSE["services"].values() for mount in service["volumes"]}
    assert used == COMPOSE["volumes"].keys()
    assert SERVICE["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_the_environment_makes_settings_that_may_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(ASSAY_TOKEN="long", POSTGRES_PASSWORD="secret").items():
        assert name.removeprefix("ASSAY_").lower() in Settings.model_fields
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.is_exposed
    assert settings.token == "long"
    assert settings.allowed_hosts == ("assay",)
    database = COMPOSE["services"]["postgres"]["environment"]
    user, name = database["POSTGRES_USER"], database["POSTGRES_DB"]
    assert settings.resolved_database_url == f"postgresql://{user}:secret@postgres:5432/{name}"
    assert f"{settings.home}" in {mount.split(":")[1] for mount in SERVICE["volumes"]}


@pytest.mark.parametrize("given", [{"ASSAY_TOKEN": "long"}, {"POSTGRES_PASSWORD": "secret"}])
def test_secrets_must_be_given(given: dict[str, str]) -> None:
    with pytest.raises(KeyError):
        environment(**given)


def test_ports_and_health_checks_are_those_that_the_service_has() -> None:
    default = Settings.model_fields["port"].default
    checks = [" ".join(SERVICE["healthcheck"]["test"]), DOCKERFILE.partition("HEALTHCHECK")[2]]
    for check in checks:
        (port, path), *_ = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", check)
        assert int(port) == default == int(SERVICE["environment"]["ASSAY_PORT"])
        assert path in served_paths()
    assert SERVICE["ports"] == [f"127.0.0.1:{default}:{default}"]
    assert f"EXPOSE {default}" in DOCKERFILE


def test_the_image_holds_what_it_needs_and_runs_as_nobody_special() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    copied = [
        name for line in re.findall(r"^COPY (.+)", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]
    ]
    ignored = read(".dockerignore").splitlines()
    assert [name for name in copied if not (ROOT / name).exists() or f"!{name}" not in ignored] == []
    extras = set(re.findall(r'"\.\[([\w,]+)\]"', DOCKERFILE)[0].split(","))
    assert {"trainer", "postgres"} <= extras <= project["optional-dependencies"].keys()
    assert re.findall(r"torch==[\d.]+", DOCKERFILE) == re.findall(r"torch==[\d.]+", read("constraints.txt"))
    assert re.search(r"^FROM python:3\.\d+-slim", DOCKERFILE, re.MULTILINE)
    assert re.findall(r"^USER (\w+)", DOCKERFILE, re.MULTILINE) == ["assay"]
    assert SERVICE["image"] == f"assay:{project['version']}"


def test_the_service_is_a_child_in_its_container_so_that_workers_outlive_it() -> None:
    (built,) = re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert json.loads(built) == SERVICE["command"] == ["assay", "serve", "--keep"]
    serve = typer.main.get_group(app).commands["serve"]
    assert serve.make_context("serve", SERVICE["command"][2:]).params["keep"] is True
    assert SERVICE["init"] is True
    assert seconds(SERVICE["stop_grace_period"]) > PATIENCE_SECONDS > STOP_SECONDS


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read_string(UNIT)
    return parser


def test_the_unit_leaves_workers_alone() -> None:
    service = unit()["Service"]
    assert service["KillMode"] == "process"
    assert service["OOMPolicy"] == "continue"
    assert seconds(service["TimeoutStopSec"]) > STOP_SECONDS
    assert int(service["RestartPreventExitStatus"]) == BAD_SETTINGS
    assert service["Restart"] == "on-failure"
    assert int(service["LimitNOFILE"]) >= 65536
    broken = {"PrivateTmp", "PrivateDevices", "MemoryDenyWriteExecute", "RuntimeDirectory", "MemoryMax"}
    assert broken.isdisjoint(service)


def test_the_unit_starts_a_command_that_is_there_in_a_folder_that_it_may_write() -> None:
    service = unit()["Service"]
    program, command, *options = service["ExecStart"].split()
    assert program.endswith("/bin/assay")
    assert typer.main.get_group(app).commands[command].make_context(command, options)
    name, _, home = service["Environment"].partition("=")
    assert name.removeprefix("ASSAY_").lower() in Settings.model_fields
    assert home == f"/var/lib/{service['StateDirectory']}"
    assert service["ProtectSystem"] == "strict"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """With a program that is there, since systemd looks for it; a misspelt key is seen."""
    there = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT, flags=re.MULTILINE)
    assert complaints(tmp_path / "assay.service", there) == ""
    assert "KilMode" in complaints(tmp_path / "wrong.service", there.replace("KillMode", "KilMode"))


def complaints(file: Path, text: str) -> str:
    file.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False, timeout=60
    )
    return "".join(line for line in done.stderr.splitlines() if file.name in line)
