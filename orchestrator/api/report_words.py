"""Numbers and commands of a report as the words that its page shows. A dash stands for what is not known."""

import math
import shlex
from collections.abc import Sequence
from datetime import datetime

from orchestrator.protocol.report import Identity
from orchestrator.services.views_compare import IntervalView
from orchestrator.services.views_report import ReportView, RunReport

NOTHING = "–"


def number(value: float | None, digits: int = 3) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    return NOTHING if value is None else f"{value:+.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """With its sign; for what is already in percent."""
    return NOTHING if value is None else f"{value:+.{digits}f}%"


def count(value: float | None) -> str:
    return NOTHING if value is None or not math.isfinite(value) else f"{value:,.0f}"


def short(value: float | None) -> str:
    """A large number in few signs: 950, 12.3k, 4.56M."""
    if value is None or not math.isfinite(value):
        return NOTHING
    for limit, letter, size in (
        (1e12, "T", 1e12),
        (999.5e6, "G", 1e9),
        (999.5e3, "M", 1e6),
        (999.5, "k", 1e3),
    ):
        if abs(value) >= limit:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def memory(value: float | None) -> str:
    """Bytes in units of 1,024."""
    if value is None:
        return NOTHING
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def seconds(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return NOTHING
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.2f} h"


def interval(value: IntervalView | None, digits: int = 3, unit: str = "") -> str:
    """`+0.120 [+0.071, +0.169]`; the mean alone where there is one seed."""
    if value is None:
        return NOTHING
    mean = f"{value.mean:+.{digits}f}{unit}"
    if value.low is None or value.high is None:
        return mean
    return f"{mean} [{value.low:+.{digits}f}, {value.high:+.{digits}f}]"


def when(value: datetime | None) -> str:
    return "now" if value is None else value.strftime("%Y-%m-%d %H:%M:%S")


def machines(runs: Sequence[RunReport]) -> list[tuple[Identity, list[RunReport]]]:
    """Where and with what runs were trained, and which: those that ran alike together."""
    found: dict[str, tuple[Identity, list[RunReport]]] = {}
    for run in runs:
        if run.identity is not None:
            alike = run.identity.model_dump_json(
                include={"device", "threads", "versions", "code", "evaluation_set", "tokenizer"}
            )
            found.setdefault(alike, (run.identity, []))[1].append(run)
    return list(found.values())


def commands(report: ReportView) -> list[tuple[str, str]]:
    """(what it does, the command) of each step from an empty folder to the same experiment."""
    identity = next((run.identity for run in report.runs if run.identity), None)
    code = identity.code if identity else {}
    code = code or report.service.code
    steps = []
    if commit := code.get("git_commit"):
        said = "the code"
        if diff := code.get("git_diff_sha256"):
            said += f", to which the patch with the SHA-256 {diff} had been applied and not committed"
        steps.append((said, f"git checkout {shlex.quote(commit)}"))
    packages = {} if identity is None else identity.versions
    outside = ("python", "cuda", "assay")
    pins = [f"{name}=={found.partition('+')[0]}" for name, found in packages.items() if name not in outside]
    if pins:
        said = f"the packages, on Python {packages.get('python', '3')}"
        steps.append((said, f"pip install {' '.join(shlex.quote(pin) for pin in pins)}"))
    read = "import json; r = json.load(open('report.json')); s = r['experiment']['spec']"
    write = "s['policy'] = r['policy']['document']; json.dump(s, open('spec.json', 'w'), indent=2)"
    folder = shlex.quote(report.experiment.id)
    steps.append(("this report as data", f"assay report {folder} --out ."))
    steps.append(("the spec, with the policy as it was", f'python -c "{read}; {write}"'))
    steps.append(("the experiment", "assay submit spec.json --watch"))
    return steps
