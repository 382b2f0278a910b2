"""`assay demo`: a real experiment from submission to report, and no process stays behind."""

import json
from pathlib import Path
from threading import Event
from time import monotonic

from rich.console import Console
from rich.text import Text

from orchestrator.cli import tables
from orchestrator.cli.acts import idempotency_key
from orchestrator.cli.client import Client, Json
from orchestrator.cli.demo_service import DemoService, workers_of
from orchestrator.cli.documents import Document
from orchestrator.cli.errors import CliError, DemoFailed
from orchestrator.cli.files import configs, read_spec
from orchestrator.cli.reads import write_report, write_text
from orchestrator.cli.signals import Interruptions
from orchestrator.cli.watch import follow

WORKERS_SECONDS = 60.0


def default_spec() -> Path:
    return configs() / "experiments" / "demo.yaml"


def demo(spec_file: Path, out: Path, console: Console) -> Json:
    """The experiment as it ended. Whatever happens, no process stays behind."""
    spec = read_spec(spec_file)
    out.mkdir(parents=True, exist_ok=True)
    service = DemoService(out / "home", out / "service.log")
    with Interruptions() as interruptions:
        try:
            console.print(Text(f"starting a service of its own in {service.home}"), soft_wrap=True)
            with interruptions.held():
                service.start()
            with service.connect() as client:
                ended, runs = _experiment(client, service, spec, out, console, interruptions)
        finally:
            with interruptions.held():
                service.stop()
                _check_gone(service, console)
    _close(ended, runs, out, console)
    return ended


def _experiment(
    client: Client,
    service: DemoService,
    spec: Document,
    out: Path,
    console: Console,
    interruptions: Interruptions,
) -> tuple[Json, list[Json]]:
    """The experiment as it ended, and its runs with their evaluations."""
    experiment: Json | None = None
    try:
        experiment = client.post("/v1/experiments", spec, key=idempotency_key(spec))
        console.print(Text(f"submitted {experiment['name']} as {experiment['id']}"))
        ended = follow(client, experiment["id"], console)
        runs = _write(client, ended, out)
        wait_for_workers(service)
    except BaseException:
        with interruptions.held():
            _cancel(client, service, experiment, console)
        raise
    return ended, runs


def _cancel(client: Client, service: DemoService, experiment: Json | None, console: Console) -> None:
    """As far as the service still answers; what is left after that is ended with it."""
    console.print(
        Text("ending the demo: cancelling the experiment and waiting for its workers"), soft_wrap=True
    )
    try:
        if experiment is not None:
            client.post(f"/v1/experiments/{experiment['id']}/cancel", {"reason": "the demo was interrupted"})
        wait_for_workers(service)
    except CliError as error:
        console.print(Text(error.lines[0]), soft_wrap=True)


def wait_for_workers(service: DemoService) -> None:
    """Until no worker is left, at most for a minute."""
    deadline = monotonic() + WORKERS_SECONDS
    while workers_of(service.home) and monotonic() < deadline:
        Event().wait(0.2)


def _check_gone(service: DemoService, console: Console) -> None:
    left = [process.pid for process in workers_of(service.home)]
    if left:
        pids = ", ".join(str(pid) for pid in left)
        console.print(Text(f"could not end the processes {pids}", style="red"))


def _write(client: Client, experiment: Json, out: Path) -> list[Json]:
    """`summary.json`, `report.json` and `report.html`: the runs with their evaluations."""
    id_ = experiment["id"]
    runs = [
        {**run, "evaluations": client.items(f"/v1/runs/{run['id']}/evaluations")}
        for run in client.items(f"/v1/experiments/{id_}/runs")
    ]
    summary = {
        "experiment": experiment,
        "stages": experiment["stages"],
        "runs": runs,
        "decisions": client.items("/v1/decisions", experiment_id=id_),
    }
    write_text(out / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    write_report(client, id_, out)
    return runs


def _close(experiment: Json, runs: list[Json], out: Path, console: Console) -> None:
    console.print(Text())
    console.print(tables.closing(runs))
    variant = next((run["variant"] for run in runs if not run["is_control"]), experiment["control"])
    serve = f"ASSAY_HOME={out / 'home'} assay serve"
    for line in (
        "",
        f"wrote {out / 'summary.json'}, {out / 'report.json'} and {out / 'report.html'}",
        f"next: open {out / 'report.html'}, or ask the service again:",
        f"  {serve}",
        f"  ASSAY_HOME={out / 'home'} assay why {experiment['id']}/{variant}",
    ):
        console.print(Text(line), soft_wrap=True)
    if experiment["status"] != "succeeded":
        raise DemoFailed(
            f"the experiment {experiment['status']}: {experiment['conclusion'] or 'no conclusion'}"
        )
