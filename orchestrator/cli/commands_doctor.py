"""`assay doctor`: looks at the files of a home itself, so the service's own program does it."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

Home = Annotated[Path | None, typer.Option(help="Data folder, as of `serve`.", show_default=False)]
Mend = Annotated[bool, typer.Option("--repair", help="Mend what is safe; no data of a person is touched.")]
Quick = Annotated[bool, typer.Option("--quick", help="Compare sizes, and read no checkpoint through.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")]


def doctor(home: Home = None, repair: Mend = False, quick: Quick = False, as_json: AsJson = False) -> None:
    """Examine a home: database, checkpoints, workers, disk. Exits with 1 when something is to be done."""
    if home is not None:
        os.environ["ASSAY_HOME"] = str(home.absolute())
    given = {"--repair": repair, "--quick": quick, "--json": as_json}
    flags = [flag for flag, is_given in given.items() if is_given]
    os.execv(sys.executable, [sys.executable, "-m", "orchestrator.checkup", *flags])  # noqa: S606 - no shell
