"""A report as files: the page, the data, the tables, and on request the figures as images."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from orchestrator.cli.client import Client, Json
from orchestrator.cli.errors import CliError
from orchestrator.cli.output import put_json, say
from orchestrator.cli.reads import write_text
from orchestrator.cli.resolve import experiment_id

FILES = {
    "report.html": {"format": "html"},
    "report.json": {"format": "json"},
    "runs.csv": {"format": "csv", "table": "runs"},
    "evaluations.csv": {"format": "csv", "table": "evaluations"},
    "table.tex": {"format": "latex"},
}
WIDTH = 1100
NO_KALEIDO = "--images needs the package kaleido: pip install 'assay[images]'"
NO_BROWSER = "--images needs Chrome or Chromium: install one, or name it in BROWSER_PATH"


def report(client: Client, experiment: str, out: Path | None, images: str | None, as_json: bool) -> None:
    """Raises `CliError` where images are asked for and cannot be drawn; the other files are written first."""
    id_ = experiment_id(client, experiment)
    if as_json:
        put_json(client.get(f"/v1/experiments/{id_}/report", format="json"))
    if out is None:
        return
    written = write_report(client, id_, out)
    if images is not None:
        written += write_images(client.get(f"/v1/experiments/{id_}/figures"), out / "figures", images)
    for file in written if not as_json else []:
        say(f"wrote {file}")


def write_report(client: Client, experiment: str, out: Path) -> list[Path]:
    """Each of `FILES` in `out`: the paths written."""
    out.mkdir(parents=True, exist_ok=True)
    path = f"/v1/experiments/{experiment}/report"
    return [write_text(out / name, client.text(path, **asked)) for name, asked in FILES.items()]


def write_images(figures: Json, out: Path, ending: str) -> list[Path]:
    """Each figure in `out`: the paths written. A browser draws them, without a window.

    Raises `CliError` with what is missing where kaleido or a browser is.
    """
    if not figures:
        return []
    if find_spec("kaleido") is None:
        raise CliError(NO_KALEIDO)
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{name}.{ending}" for name in figures]
    try:
        _draw([_for_paper(figure) for figure in figures.values()], files)
    except Exception as error:  # a browser can fail in many ways; kaleido lets each of them through
        missing = "Chrome" in str(error) and "install" in str(error)
        why = NO_BROWSER if missing else f"the browser could not draw the figures: {error}".strip()
        raise CliError(why) from error
    return files


def _draw(figures: list[Any], files: list[Path]) -> None:
    from plotly.io import write_images as draw

    draw(figures, files, width=WIDTH, height=[figure.layout.height for figure in figures], scale=2)


def _for_paper(figure: Json) -> Any:
    """On white, and without what can only be clicked."""
    from plotly.io import from_json

    made = from_json(json.dumps(figure))
    return made.update_layout(paper_bgcolor="white", plot_bgcolor="white", updatemenus=[])
