"""Pages for a browser: what is running and what came of it, with a link to each report."""

from functools import cache
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, select_autoescape

from orchestrator.services.context import Context
from orchestrator.services.query import list_experiments

router = APIRouter(include_in_schema=False)

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""The page loads nothing and runs nothing."""


@cache
def _environment() -> Environment:
    loader = PackageLoader("orchestrator.dashboard")
    return Environment(loader=loader, autoescape=select_autoescape(), trim_blocks=True)


@router.get("/", response_class=HTMLResponse)
def index(request: Request, cursor: Annotated[str | None, Query(max_length=64)] = None) -> HTMLResponse:
    """Every experiment, newest first."""
    context: Context = request.app.state.context
    page = list_experiments(context, limit=50, cursor=cursor, status=None, name=None)
    text = _environment().get_template("index.html").render(page=page)
    return HTMLResponse(text, headers={"Content-Security-Policy": POLICY})
