"""What a demo leaves for people and programs: its files, and what to do next."""

import json
import shlex
from pathlib import Path

from orchestrator.cli.client import Client, Json
from orchestrator.cli.reads import write_text
from orchestrator.cli.reports import write_report


def summarize(client: Client, experiment: Json) -> Json:
    """The experiment, its stages, its runs with their evaluations, its decisions: objects of the API."""
    id_ = experiment["id"]
    runs = client.items(f"/v1/experiments/{id_}/runs")
    return {
        "experiment": experiment,
        "stages": experiment["stages"],
        "runs": [{**run, "evaluations": client.items(f"/v1/runs/{run['id']}/evaluations")} for run in runs],
        "decisions": client.items("/v1/decisions", experiment_id=id_),
    }


def write_summary(client: Client, summary: Json, out: Path) -> None:
    """`summary.json` and the files of the report in `out`."""
    write_text(out / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    write_report(client, summary["experiment"]["id"], out)


def next_steps(summary: Json, out: Path) -> tuple[str, ...]:
    """What was written, and what can be done with it."""
    experiment, runs = summary["experiment"], summary["runs"]
    variant = next((run["variant"] for run in runs if not run["is_control"]), experiment["control"])
    home = f"ASSAY_HOME={shlex.quote(str(out / 'home'))}"
    return (
        f"wrote summary.json and the report (page, data, tables) to {out}",
        f"next: open {out / 'report.html'}, or start the service on this data and ask it",
        f"  {home} assay serve",
        f"  {home} assay why {experiment['id']}/{variant}",
    )
