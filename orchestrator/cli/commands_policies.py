"""`assay policies`: the documents that a spec may name. `policies` does the work, imported when called."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import AsJson, Url

app = typer.Typer(
    invoke_without_command=True,
    subcommand_metavar="[COMMAND] [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="race: the newest version; or race@1.", show_default=False)
]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A policy in JSON or YAML.", show_default=False)]


@app.callback()
def policies(
    context: typer.Context,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of a policy.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List the policies that a spec may name, show one, add one."""
    if context.invoked_subcommand is not None:
        if url is not None:
            context.default_map = {name: {"url": url} for name in ("show", "add")}
        return
    from orchestrator.cli import client, policies

    with client.connect(url) as service:
        policies.schema(service) if schema else policies.ls(service, as_json)


@app.command()
def show(name: Name, url: Url = None, as_json: AsJson = False) -> None:
    """Show a policy: what it asks, every number written out."""
    from orchestrator.cli import client, policies

    with client.connect(url) as service:
        policies.show(service, name, as_json)


@app.command()
def add(file: File, url: Url = None, as_json: AsJson = False) -> None:
    """Record a policy under its name and version, for specs to name."""
    from orchestrator.cli import client, policies

    with client.connect(url) as service:
        policies.add(service, file, as_json)
