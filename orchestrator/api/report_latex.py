"""The comparison of a report as a LaTeX table that needs no package."""

from collections.abc import Sequence

from orchestrator.api.report_words import count, memory, short
from orchestrator.services.views_compare import IntervalView, VariantCompare
from orchestrator.services.views_report import ReportView

SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "×": r"$\times$",
}
COLUMNS = (
    ("variant", "l"),
    ("step", "r"),
    ("parameters", "r"),
    ("active", "r"),
    ("FLOPs/token", "r"),
    ("eval loss", "r"),
    ("gap", "r"),
    ("drop", "r"),
    ("perplexity", "r"),
    ("band", "l"),
    ("tokens/s", "r"),
    ("memory", "r"),
)


def latex_table(report: ReportView) -> str:
    """A `tabular` with a row for each variant, the control first. Every word in it is escaped."""
    experiment = report.experiment
    rows = [_row(variant) for variant in report.compare.variants]
    lines = [
        f"% {_comment(experiment.name)} ({experiment.id})",
        f"% policy {_comment(report.policy.name)} {report.policy.hash}",
        "% gap in nats per token against the control at the same step; intervals are 95% over seeds",
        rf"\begin{{tabular}}{{{''.join(place for _, place in COLUMNS)}}}",
        r"\hline",
        _line([escape(name) for name, _ in COLUMNS]),
        r"\hline",
        *(_line(row) for row in rows),
        r"\hline",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """The text as LaTeX sets it: what has a meaning there is written out; `?` for what is not ASCII."""
    return "".join(SPECIAL.get(sign, sign if sign.isascii() else "?") for sign in text)


def _row(v: VariantCompare) -> Sequence[str]:
    name = escape(v.variant) + (" (control)" if v.is_control else "")
    size = [escape(short(m.value)) for m in (v.params_total, v.params_active, v.flops_per_token)]
    if v.invalid or v.at is None:
        why = "invalid" if v.invalid else "not yet"
        return [name, rf"\emph{{{why}}}", *size, *["--"] * 5, *_cost(v)]
    loss = "--" if v.eval_loss is None else f"{v.eval_loss:.3f}"
    compared = [
        _interval(v.gap, 3),
        _interval(v.quality_drop_percent, 2, r"\,\%"),
        _interval(v.perplexity_change_percent, 1, r"\,\%"),
    ]
    return [name, count(v.at), *size, loss, *compared, escape(v.band or "–"), *_cost(v)]


def _cost(v: VariantCompare) -> list[str]:
    return [escape(count(v.tokens_per_second.value)), escape(memory(v.peak_memory_bytes.value))]


def _interval(interval: IntervalView | None, digits: int, unit: str = "") -> str:
    """In math mode, where a minus is a minus."""
    if interval is None:
        return "--"
    mean = f"${interval.mean:+.{digits}f}{unit}$"
    if interval.low is None or interval.high is None:
        return mean
    return rf"{mean} $[{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]$"


def _line(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _comment(text: str) -> str:
    """A line break would end the comment."""
    return " ".join(text.split())
