"""The report of an experiment in every form. What loads Plotly is imported when a page is asked for."""

import json
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

from orchestrator.api import report_latex, report_tables
from orchestrator.api.deps import AppContext, ExperimentId
from orchestrator.services.report import report
from orchestrator.services.views_report import ReportView

router = APIRouter(prefix="/v1", tags=["reports"])

Format = Annotated[Literal["json", "html", "csv", "latex"], Query(alias="format")]
TABLES = {"runs": report_tables.runs_csv, "evaluations": report_tables.evaluations_csv}


@router.get("/experiments/{experiment_id}/report", response_model=ReportView)
def get_report(
    context: AppContext,
    experiment_id: ExperimentId,
    format_: Format = "json",
    table: Annotated[
        Literal["runs", "evaluations"], Query(description="With `format=csv`: a row for each of which")
    ] = "runs",
) -> ReportView | Response:
    """Everything about an experiment: as data, one self-contained page, a table, or a table for LaTeX."""
    found = report(context, experiment_id)
    if format_ == "csv":
        return Response(TABLES[table](found), media_type="text/csv; charset=utf-8")
    if format_ == "latex":
        return PlainTextResponse(report_latex.latex_table(found), media_type="text/x-tex")
    if format_ == "html":
        from orchestrator.api.report import report_html  # 60 MB that a service at rest does not need

        return HTMLResponse(report_html(found))
    return found


@router.get("/experiments/{experiment_id}/figures")
def get_figures(context: AppContext, experiment_id: ExperimentId) -> Response:
    """The report's figures as Plotly's JSON, each under its name."""
    from orchestrator.api.report_figures import draw_report

    drawn = draw_report(report(context, experiment_id))
    body = json.dumps({figure.key: json.loads(figure.figure.to_json()) for figure in drawn})
    return Response(body, media_type="application/json")
