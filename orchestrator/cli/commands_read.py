"""The reading commands as typer sees them; `reads` does the work and is imported when one is called."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from orchestrator.cli.options import DETACHED, AsJson, EveryCriterion, EveryDecision, Exp, Run, Spec, Url


def plan(file: Spec, url: Url = None, as_json: AsJson = False) -> None:
    """Show what a spec would do. Writes nothing."""
    from orchestrator.cli import client, reads

    with client.connect(url) as service:
        reads.plan(service, file, as_json)


def ls(
    status: Annotated[
        Literal["running", "paused", "succeeded", "failed", "cancelled"] | None,
        typer.Option(help="Only those.", show_default=False),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only those.", show_default=False)] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List experiments, newest first."""
    from orchestrator.cli import client, reads

    with client.connect(url) as service:
        reads.ls(service, status, name, as_json)


def status(experiment: Exp, url: Url = None, as_json: AsJson = False) -> None:
    """Show where an experiment, its stages and its runs stand."""
    from orchestrator.cli import client, reads

    with client.connect(url) as service:
        reads.status(service, experiment, as_json)


def watch(experiment: Exp, url: Url = None, every: EveryDecision = False, as_json: AsJson = False) -> None:
    """Follow an experiment to its end. Ctrl-C leaves it running."""
    watch_to_the_end(experiment, url, every=every, as_json=as_json)


def watch_to_the_end(experiment: str, url: str | None, *, every: bool, as_json: bool) -> None:
    """Exits with 1 unless the experiment succeeded."""
    from orchestrator.cli import client, output, reads

    try:
        with client.connect(url) as service:
            ended = reads.watch(service, experiment, every, as_json)
    except KeyboardInterrupt:
        if not as_json:
            output.say(f"it goes on without you; come back with: assay watch {experiment}")
        raise typer.Exit(DETACHED) from None
    if ended["status"] != "succeeded":
        raise typer.Exit(1)


def why(run: Run, url: Url = None, every: EveryCriterion = False, as_json: AsJson = False) -> None:
    """Tell a run's story: every decision on it and what it rests on, latest first."""
    from orchestrator.cli import client, reads

    with client.connect(url) as service:
        reads.why(service, run, every, as_json)


def decisions(
    experiment: Exp,
    kind: Annotated[
        Literal["continue", "stop", "promote", "decline", "hold", "fail", "fall_back"] | None,
        typer.Option(help="Only those.", show_default=False),
    ] = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="What the second policy would have decided.")
    ] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List what was decided, oldest first."""
    from orchestrator.cli import client, reads

    with client.connect(url) as service:
        reads.decisions(service, experiment, kind, shadow, as_json)


def replay(experiment: Exp, url: Url = None, as_json: AsJson = False) -> None:
    """Make every decision once more from the recorded rows; exits with 1 unless the log comes out exactly."""
    from orchestrator.cli import client, reads

    with client.connect(url) as service:
        exact = reads.replay(service, experiment, as_json)
    if not exact:
        raise typer.Exit(1)


def events(experiment: Exp, url: Url = None, as_json: AsJson = False) -> None:
    """List what happened, oldest first: retries, pauses, what the engine said."""
    from orchestrator.cli import client, reads

    with client.connect(url) as service:
        reads.events(service, experiment, as_json)


def compare(
    experiment: Exp,
    axis: Annotated[Literal["step", "tokens"], typer.Option(help="What is held equal.")] = "step",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Compare every run with the control at matched points."""
    from orchestrator.cli import client, reads

    with client.connect(url) as service:
        reads.compare(service, experiment, axis, as_json)


def runs(experiment: Exp, url: Url = None, as_json: AsJson = False) -> None:
    """List the runs of an experiment."""
    from orchestrator.cli import client, reads

    with client.connect(url) as service:
        reads.runs(service, experiment, as_json)


def logs(
    run: Run,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Until the run has ended.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Print the output of a run's workers."""
    from orchestrator.cli import client, reads

    try:
        with client.connect(url) as service:
            reads.logs(service, run, follow, as_json)
    except KeyboardInterrupt:
        raise typer.Exit(DETACHED) from None


def report(
    experiment: Exp,
    out: Annotated[Path | None, typer.Option(help="Folder for the files.", show_default=False)] = None,
    images: Annotated[
        Literal["png", "svg"] | None,
        typer.Option(help="Also draw each figure as an image.", show_default=False),
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Write the report: a page, its data, tables as CSV and for LaTeX, and images on request."""
    from orchestrator.cli import client, reports

    if out is None and (images is not None or not as_json):
        raise typer.BadParameter("say where to write: --out DIR (or --json to print it)")
    with client.connect(url) as service:
        reports.report(service, experiment, out, images, as_json)


def slots(url: Url = None, as_json: AsJson = False) -> None:
    """List the slots of the machine and who holds them."""
    from orchestrator.cli import client, reads

    with client.connect(url) as service:
        reads.slots(service, as_json)
