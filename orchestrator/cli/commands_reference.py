"""`assay reference`: curves that are not rerun. `references` does the work, imported when one is called."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from orchestrator.cli.options import AsJson, Url

app = typer.Typer(
    help="Curves that are not rerun, to compare with: imported, or taken from a run.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Reference = Annotated[
    str, typer.Argument(metavar="REF", help="ref_3, or a name: the newest of it.", show_default=False)
]
Name = Annotated[str | None, typer.Option(help="What it is called.", show_default=False)]
Description = Annotated[str, typer.Option(help="For whoever reads it later.", show_default=False)]


@app.command("import")
def import_(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Files or run folders of one run.", show_default=False),
    ],
    name: Name = None,
    format_: Annotated[
        Literal["auto", "huggingface", "live-log", "csv", "jsonl"], typer.Option("--format")
    ] = "auto",
    steps_per_epoch: Annotated[
        float | None, typer.Option(help="For logs that say epochs alone.", show_default=False)
    ] = None,
    eval_every: Annotated[
        int | None, typer.Option(help="Steps between evaluations, for rounded epochs.", show_default=False)
    ] = None,
    tokens_per_step: Annotated[int | None, typer.Option(help="Training tokens.", show_default=False)] = None,
    evaluation_set: Annotated[
        str | None, typer.Option(help="Hash of the evaluation tokens.", show_default=False)
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="As runs report it.", show_default=False)] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Family of its learning rate's schedule.", show_default=False)
    ] = None,
    horizon: Annotated[
        int | None, typer.Option(help="Step that the schedule is sized to.", show_default=False)
    ] = None,
    like: Annotated[
        str | None, typer.Option(metavar="RUN", help="A run that it shares these with.", show_default=False)
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Of several runs in one table, this.", show_default=False)
    ] = None,
    description: Description = "",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Store the curve of one run from its files."""
    from orchestrator.cli import client, output, references

    identity = {
        "evaluation_set": evaluation_set,
        "tokenizer": tokenizer,
        "schedule_family": schedule,
        "horizon_step": horizon,
        "tokens_per_step": tokens_per_step,
    }
    choices = references.choices(steps_per_epoch, eval_every, run)
    document = references.read(paths, choices, format_, name, identity, description)
    with client.connect(url) as service:
        made = references.store(service, document, like)
    output.put(made, as_json, references.stored)


@app.command("from")
def from_(
    source: Annotated[
        str,
        typer.Argument(metavar="RUN_OR_EXP", help="run_3, EXP/variant[/seed], or exp_1.", show_default=False),
    ],
    variant: Annotated[
        str | None, typer.Option(help="Of an experiment; else its control.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Else the first.", show_default=False)] = None,
    name: Name = None,
    description: Description = "",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Store the curve of a run, or of an experiment's control."""
    from orchestrator.cli import client, output, references

    with client.connect(url) as service:
        made = references.take(service, source, variant, seed, name, description)
    output.put(made, as_json, references.stored)


@app.command()
def ls(name: Name = None, url: Url = None, as_json: AsJson = False) -> None:
    """List references, newest first."""
    from orchestrator.cli import client, references

    with client.connect(url) as service:
        references.ls(service, name, as_json)


@app.command()
def show(reference: Reference, url: Url = None, as_json: AsJson = False) -> None:
    """Show a reference: its curve, what is known of it, and what was dropped."""
    from orchestrator.cli import client, output, references

    with client.connect(url) as service:
        output.put(references.find(service, reference), as_json, references.shown)
