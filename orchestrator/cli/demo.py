"""`assay demo`: a real experiment from submission to report, and no process stays behind."""

from pathlib import Path
from threading import Event
from time import monotonic

from rich.console import Console
from rich.text import Text

from orchestrator.cli import tables
from orchestrator.cli.acts import idempotency_key
from orchestrator.cli.client import Client, Json
from orchestrator.cli.demo_service import DemoService
from orchestrator.cli.documents import Document
from orchestrator.cli.errors import CliError, DemoFailed
from orchestrator.cli.files import configs, read_spec
from orchestrator.cli.signals import Interruptions
from orchestrator.cli.summary import next_steps, summarize, write_summary
from orchestrator.cli.watch import follow

WORKERS_SECONDS = 60.0


def default_spec() -> Path:
    return configs() / "experiments" / "demo.yaml"


def demo(spec_file: Path, out: Path, console: Console) -> None:
    """Runs the spec. Raises `DemoFailed` unless it succeeds; a signal to end leaves as `Interrupted`."""
    spec = read_spec(spec_file)
    out.mkdir(parents=True, exist_ok=True)
    service = DemoService(out / "home", out / "service.log")
    with Interruptions() as interruptions:
        try:
            _say(console, f"starting a service of its own in {service.home}")
            with interruptions.held():
                service.start()
            with service.connect() as client:
                try:
                    summary = _experiment(client, spec, out, console)
                except BaseException:
                    with interruptions.held():
                        _say(console, "ending the demo: its experiment is cancelled, its workers checkpoint")
                        _cancel_all(client, "the demo was interrupted", console)
                    raise
                finally:
                    with interruptions.held():
                        wait_for_workers(service)
        finally:
            with interruptions.held():
                service.stop()
                _check_gone(service, console)
    console.print(Text(), tables.closing(summary["runs"], summary["decisions"]), Text(), sep="\n")
    for line in next_steps(summary, out):
        _say(console, line)
    experiment = summary["experiment"]
    if experiment["status"] != "succeeded":
        raise DemoFailed(
            f"the experiment {experiment['status']}: {experiment['conclusion'] or 'no conclusion'}"
        )


def _experiment(client: Client, spec: Document, out: Path, console: Console) -> Json:
    """The summary of the experiment once it has ended; the files are written."""
    _cancel_all(client, "left behind by a demo that was killed", console)
    experiment = client.post("/v1/experiments", spec, key=idempotency_key(spec))
    _say(console, f"submitted {experiment['name']} as {experiment['id']}")
    summary = summarize(client, follow(client, experiment["id"], console))
    write_summary(client, summary, out)
    return summary


def _cancel_all(client: Client, reason: str, console: Console) -> None:
    """Every open experiment, as far as the service still answers: the data folder is the demo's own."""
    try:
        for status in ("running", "paused"):
            for experiment in client.items("/v1/experiments", status=status):
                client.post(f"/v1/experiments/{experiment['id']}/cancel", {"reason": reason})
    except CliError as error:
        _say(console, error.lines[0])


def wait_for_workers(service: DemoService) -> None:
    """Until no worker is left or nobody is there to end them, at most for a minute."""
    deadline = monotonic() + WORKERS_SECONDS
    while service.is_alive and service.workers() and monotonic() < deadline:
        Event().wait(0.2)


def _check_gone(service: DemoService, console: Console) -> None:
    left = [process.pid for process in service.workers()]
    if left:
        _say(console, f"could not end the processes {', '.join(str(pid) for pid in left)}")


def _say(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)
