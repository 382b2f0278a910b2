"""The runs and evaluations of a report as CSV, for spreadsheets and data frames."""

import csv
import io
from collections.abc import Iterable, Mapping

from orchestrator.services.views import EvaluationView
from orchestrator.services.views_compare import ComparePoint
from orchestrator.services.views_report import ReportView, RunReport

Cell = str | int | float | bool | None
ROUTING = ("entropy", "entropy_worst_layer", "load_min", "load_max", "dropped_tokens", "dead_experts")
COMPARED = (
    "control_loss",
    "gap",
    "quality_drop_percent",
    "perplexity_change_percent",
    "band",
    "invalid",
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def runs_csv(report: ReportView) -> str:
    """One row for each run: what it is, how it ended, its last evaluation beside the control's."""
    compared = {row.run_id: row for row in report.compare.rows}
    return _csv(_run(run, compared[run.id].points) for run in report.runs)


def evaluations_csv(report: ReportView) -> str:
    """One row for each evaluation of each run, with the gap at the same step."""
    compared = {row.run_id: row.points for row in report.compare.rows}
    return _csv(
        _who(run) | _evaluation(e) | _point(point)
        for run in report.runs
        for e, point in zip(run.evaluations, compared[run.id], strict=True)
    )


def _run(run: RunReport, points: list[ComparePoint]) -> dict[str, Cell]:
    last = run.evaluations[-1] if run.evaluations else None
    memory = [e.peak_memory_bytes for e in run.evaluations if e.peak_memory_bytes is not None]
    identity = run.identity
    return (
        _who(run)
        | {
            "is_control": run.is_control,
            "status": run.status,
            "reason": run.reason,
            "detail": run.detail,
            "stage": run.stage,
            "target_step": run.target_step,
            "attempts": run.attempts,
            "params_total": run.params_total,
            "params_active": run.params_active,
            "flops_per_token": run.flops_per_token,
            "best_eval_loss": run.best_eval_loss,
            "max_peak_memory_bytes": max(memory, default=None),
        }
        | _evaluation(last)
        | _point(points[-1] if points else None)
        | {
            "config_hash": run.config_hash,
            "device": identity.device if identity else None,
            "evaluation_set": identity.evaluation_set if identity else None,
            "tokenizer": identity.tokenizer if identity else None,
            "git_commit": identity.code.get("git_commit") if identity else None,
            "git_diff_sha256": identity.code.get("git_diff_sha256") if identity else None,
        }
    )


def _who(run: RunReport) -> dict[str, Cell]:
    return {"run_id": run.id, "variant": run.variant, "seed": run.seed}


EVALUATION = tuple(name for name in EvaluationView.model_fields if name != "routing")


def _evaluation(e: EvaluationView | None) -> dict[str, Cell]:
    routing = None if e is None else e.routing
    numbers: dict[str, Cell] = {name: getattr(e, name, None) for name in EVALUATION}
    return numbers | {name: getattr(routing, name, None) for name in ROUTING}


def _point(point: ComparePoint | None) -> dict[str, Cell]:
    return {name: getattr(point, name, None) for name in COMPARED}


def _csv(rows: Iterable[Mapping[str, Cell]]) -> str:
    """RFC 4180 with a header. What is not known is empty; what is not finite is `nan` or `inf`."""
    out = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(out, list(row))
            writer.writeheader()
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return out.getvalue()


def _cell(value: Cell) -> str | int | float | None:
    """A spreadsheet takes text that begins with a sign for a formula; a quote before it makes it text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) else value
    return value
