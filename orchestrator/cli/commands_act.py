"""The commands that change something, as typer sees them; `acts` does the work."""

from typing import Annotated

import typer

from orchestrator.cli.commands_read import watch_to_the_end
from orchestrator.cli.options import AsJson, Exp, Reason, Run, Spec, Url


def submit(
    file: Spec,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    name: Annotated[str | None, typer.Option(help="Instead of the spec's.", show_default=False)] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Hand a spec to the service, which runs it."""
    from orchestrator.cli import acts, client, output

    with client.connect(url) as service:
        made = acts.submit(service, file, name)
    if as_json:
        output.put_json(made, lines=watch)
    else:
        output.say(f"{made['id']} ({made['name']}) is {made['status']}")
        if not watch:
            output.say(f"follow it with: assay watch {made['id']}")
    if watch:
        watch_to_the_end(made["id"], url, every=False, as_json=as_json)


def promote(run: Run, reason: Reason, url: Url = None, as_json: AsJson = False) -> None:
    """Take a stopped or declined run into the open stage, from its checkpoint."""
    _on_run(run, "promote", reason, url, as_json)


def stop(run: Run, reason: Reason, url: Url = None, as_json: AsJson = False) -> None:
    """Stop a run; its checkpoint stays."""
    _on_run(run, "stop", reason, url, as_json)


def retry(run: Run, reason: Reason, url: Url = None, as_json: AsJson = False) -> None:
    """Try a failed run again, from its newest checkpoint."""
    _on_run(run, "retry", reason, url, as_json)


def pin(
    experiment: Exp,
    reference: Annotated[str, typer.Argument(help="A reference's id or name.")],
    reason: Reason = "",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Let a stored curve stand in for a control that died."""
    from orchestrator.cli import acts, client

    with client.connect(url) as service:
        acts.pin(service, experiment, reference, reason, as_json)


def pause(experiment: Exp, reason: Reason = "", url: Url = None, as_json: AsJson = False) -> None:
    """Start no further worker for an experiment."""
    _on_experiment(experiment, "pause", reason, url, as_json)


def resume(experiment: Exp, reason: Reason = "", url: Url = None, as_json: AsJson = False) -> None:
    """Go on with a paused experiment."""
    _on_experiment(experiment, "resume", reason, url, as_json)


def cancel(experiment: Exp, reason: Reason, url: Url = None, as_json: AsJson = False) -> None:
    """End an experiment and every run in it."""
    _on_experiment(experiment, "cancel", reason, url, as_json)


def _on_experiment(experiment: str, verb: str, reason: str, url: str | None, as_json: bool) -> None:
    from orchestrator.cli import acts, client

    with client.connect(url) as service:
        acts.act_on_experiment(service, experiment, verb, reason, as_json)


def _on_run(run: str, verb: str, reason: str, url: str | None, as_json: bool) -> None:
    from orchestrator.cli import acts, client

    with client.connect(url) as service:
        acts.act_on_run(service, run, verb, reason, as_json)
