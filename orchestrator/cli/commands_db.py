"""`assay db`: works on the database of a home itself, so the service's own program does it."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="Upgrade, back up and check the database of a home.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Home = Annotated[Path | None, typer.Option(help="Data folder, as of `serve`.", show_default=False)]
Out = Annotated[Path | None, typer.Option(help="The file; else one in backups/.", show_default=False)]


@app.command()
def upgrade(home: Home = None) -> None:
    """Bring the database to the schema of this version, without serving. Backs it up first."""
    _run(home, "upgrade")


@app.command()
def backup(out: Out = None, home: Home = None) -> None:
    """Copy a SQLite database while the service uses it; the copy is whole and checked."""
    _run(home, "backup", *(["--out", str(out.absolute())] if out else []))


@app.command()
def check(home: Home = None) -> None:
    """Read all of the database: exits with 1 when something in it is wrong."""
    _run(home, "check")


@app.command()
def move(home: Home = None) -> None:
    """Let another home or machine serve a PostgreSQL database, once nothing works with it."""
    _run(home, "move")


def _run(home: Path | None, *arguments: str) -> None:
    if home is not None:
        os.environ["ASSAY_HOME"] = str(home.absolute())
    program = [sys.executable, "-m", "orchestrator.upkeep", *arguments]
    os.execv(sys.executable, program)  # noqa: S606 - no shell is meant
