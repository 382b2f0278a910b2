"""`make bench`: every benchmark of the service, one line a figure. Limits stand beside the figures."""

from benchmarks import backtest, decision, gate, imports, ingest, preview, reporting, rest, ticking


def main() -> None:
    for measure in (
        rest.command_line_import,
        rest.at_rest,
        ingest.rates,
        ticking.figures,
        preview.plan,
        imports.live_log,
        decision.ours,
        decision.theirs,
        backtest.speed,
        gate.delays,
        reporting.threads,
        reporting.cost,
    ):
        for name, figure in measure().items():
            print(f"{name:<42} {figure}", flush=True)


if __name__ == "__main__":
    main()
