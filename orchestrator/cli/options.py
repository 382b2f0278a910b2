"""The arguments and options that commands share, and how the exit code of a watch is found."""

from pathlib import Path
from typing import Annotated

import typer

DETACHED = 130
"""What shells answer for Ctrl-C."""

Url = Annotated[str | None, typer.Option("--url", help="Address of the service.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the API's JSON.")]
Spec = Annotated[Path, typer.Argument(metavar="FILE", help="A spec in YAML or JSON.", show_default=False)]
Exp = Annotated[str, typer.Argument(metavar="EXP", help="exp_1, a name, or `last`.", show_default=False)]
Run = Annotated[
    str, typer.Argument(metavar="RUN", help="run_3, EXP/variant[/seed], or a variant.", show_default=False)
]
Reason = Annotated[str, typer.Option("--reason", help="Recorded with your name.", show_default=False)]
EveryDecision = Annotated[bool, typer.Option("--all", help="Show decisions to go on, too.")]
EveryCriterion = Annotated[bool, typer.Option("--all", help="Show the criteria of every decision to go on.")]
