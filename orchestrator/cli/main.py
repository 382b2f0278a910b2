"""`assay`: the commands and their exit codes. What a command does is imported when it is called."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli import commands_act as act
from orchestrator.cli import commands_backtest as backtests
from orchestrator.cli import commands_db as db
from orchestrator.cli import commands_doctor as doctors
from orchestrator.cli import commands_policies as policies
from orchestrator.cli import commands_read as read
from orchestrator.cli import commands_reference as reference
from orchestrator.cli.errors import CliError
from orchestrator.cli.options import Url

app = typer.Typer(
    name="assay",
    help="Language-model pre-training ablations through stage gates.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: list[str] | None = None) -> None:
    """Runs one command and exits: 0 done, 1 the service said no, 2 bad usage, 3 service out of reach."""
    try:
        app(args=arguments, prog_name="assay")
    except CliError as error:
        from orchestrator.cli.output import complain

        complain(error)
        sys.exit(error.exit_code)


@app.callback()
def _root(context: typer.Context, url: Url = None) -> None:
    if url is not None:  # before the command or after it, the option is the same
        context.default_map = _default_url(context.command, url)


def _default_url(command: object, url: str) -> dict[str, Any]:
    """The option of a command, or of each that is below a group."""
    below: dict[str, object] = getattr(command, "commands", {})
    return {"url": url, **{name: _default_url(inner, url) for name, inner in below.items()}}


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default=False)] = None,
    port: Annotated[int | None, typer.Option(help="0 for a free one.", show_default=False)] = None,
    home: Annotated[Path | None, typer.Option(help="Data folder.", show_default=False)] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Start it again whenever it ends.")] = False,
) -> None:
    """Start the service and stay with it."""
    given = {"HOST": host, "PORT": port, "HOME": home.absolute() if home else None}
    os.environ.update({f"ASSAY_{name}": str(value) for name, value in given.items() if value is not None})
    program = "orchestrator.keeper" if keep else "orchestrator.bootstrap"
    os.execv(sys.executable, [sys.executable, "-m", program])  # noqa: S606 - no shell is meant


def demo(
    spec: Annotated[Path | None, typer.Option(help="Another spec.", show_default=False)] = None,
    out: Annotated[Path, typer.Option(help="Folder for what it writes.")] = Path("demo-output"),
) -> None:
    """Run a real experiment with a service of its own, from submission to report."""
    from orchestrator.cli import demo as made
    from orchestrator.cli.output import console
    from orchestrator.cli.signals import Interrupted

    try:
        made.demo(spec or made.default_spec(), out, console())
    except Interrupted as interrupted:
        raise typer.Exit(128 + interrupted.signum) from None


COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Service": (serve, doctors.doctor, demo),
    "Experiments": (read.plan, act.submit, read.ls, read.status, read.watch),
    "Answers": (
        read.why,
        read.decisions,
        read.replay,
        read.events,
        read.compare,
        read.runs,
        read.logs,
        read.report,
        read.slots,
    ),
    "Recorded curves": (backtests.backtest, backtests.calibrate),
    "A person decides": (
        act.promote,
        act.stop,
        act.retry,
        act.pin,
        act.pause,
        act.resume,
        act.cancel,
    ),
}
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(db.app, name="db", rich_help_panel="Service")
app.add_typer(policies.app, name="policies", rich_help_panel="Answers")
app.add_typer(reference.app, name="reference", rich_help_panel="References")

if __name__ == "__main__":
    main()
