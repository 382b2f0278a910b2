"""`assay backtest` and `assay calibrate` as typer sees them; `backtests` does the work."""

from typing import Annotated, Literal

import typer

from orchestrator.cli.options import AsJson, Url

Exchange = Annotated[
    float | None,
    typer.Option(help="Nats that a step of the horizon is worth, for runs of others.", show_default=False),
]


def backtest(
    policy: Annotated[str, typer.Option(help="A name, name@version, or a file.", show_default=False)],
    history: Annotated[
        list[str],
        typer.Option(metavar="EXP|FILE.csv", help="Finished experiments, or one table.", show_default=False),
    ],
    against: Annotated[str, typer.Option(help="Others, with commas between.")] = "run-all",
    stages: Annotated[
        str | None, typer.Option(help="500,1500,2900: each gate's step, the end last.", show_default=False)
    ] = None,
    best: Annotated[
        str | None, typer.Option(help="4,2: the cap of each gate; none: no cap.", show_default=False)
    ] = None,
    eligible: Annotated[
        Literal["policy", "all"], typer.Option(help="With --best: who may pass a gate.")
    ] = "policy",
    eval_every: Annotated[
        int | None, typer.Option(help="Steps between evaluations.", show_default=False)
    ] = None,
    sets: Annotated[int, typer.Option(help="How many sets are drawn.")] = 1000,
    size: Annotated[
        str | None, typer.Option(help="8:16, configs in a set, or one number.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    control: Annotated[
        str | None, typer.Option(help="A config; else the first of each set.", show_default=False)
    ] = None,
    horizon_exchange: Exchange = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Replay recorded curves: what each policy would have cost, and what it would have lost."""
    from orchestrator.cli import backtests, client

    asked = backtests.Asked(
        policy,
        against,
        history,
        stages,
        best,
        eligible,
        eval_every,
        sets,
        size,
        seed,
        control,
        horizon_exchange,
    )
    with client.connect(url) as service:
        backtests.backtest(service, asked, as_json)


def calibrate(
    history: Annotated[
        list[str],
        typer.Argument(metavar="EXP...|FILE.csv", help="Ended experiments or a table.", show_default=False),
    ],
    policy: Annotated[
        str | None, typer.Option(help="Its margins stand beside the noise.", show_default=False)
    ] = None,
    steps: Annotated[
        str | None, typer.Option(help="500,1000: where; else a few of all.", show_default=False)
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Print seed noise by step, and what a policy's margins are in it."""
    from orchestrator.cli import backtests, client

    with client.connect(url) as service:
        backtests.calibrate(service, history, policy, steps, as_json)
