"""Runs and what they measured."""

from typing import Annotated

from fastapi import APIRouter, Query

from orchestrator.api.deps import AppContext, PageParams, RunId
from orchestrator.api.experiments import Action
from orchestrator.services import override, query, views

router = APIRouter(prefix="/v1/runs/{run_id}", tags=["runs"])


@router.get("")
def get_run(context: AppContext, run_id: RunId) -> views.RunView:
    return query.get_run(context, run_id)


@router.get("/evaluations")
def list_evaluations(
    context: AppContext, run_id: RunId, page: PageParams
) -> views.Page[views.EvaluationView]:
    """Ascending by step, over all attempts."""
    return query.list_evaluations(context, run_id, limit=page.limit, cursor=page.cursor)


@router.get("/series")
def get_series(
    context: AppContext,
    run_id: RunId,
    name: Annotated[str, Query(max_length=100)] = "train_loss",
    max_points: Annotated[int, Query(ge=2, le=10_000)] = 1000,
) -> views.SeriesView:
    """One dense metric between evaluations."""
    return query.get_series(context, run_id, name, max_points)


@router.get("/attempts")
def list_attempts(context: AppContext, run_id: RunId) -> views.Page[views.AttemptView]:
    return query.list_attempts(context, run_id)


@router.get("/logs")
def get_logs(
    context: AppContext, run_id: RunId, offset: Annotated[int, Query(ge=0, le=2**53)] = 0
) -> views.LogView:
    """The output of the run's workers, from `offset` bytes on."""
    return query.get_logs(context, run_id, offset)


@router.post("/stop")
def stop(context: AppContext, run_id: RunId, action: Action) -> views.RunView:
    """A person stops a run; its checkpoint stays."""
    override.stop_run(context, run_id, action.signed, action.reason)
    return query.get_run(context, run_id)


@router.post("/retry")
def retry(context: AppContext, run_id: RunId, action: Action) -> views.RunView:
    """A person has a failed run tried again, from its newest checkpoint."""
    override.retry_run(context, run_id, action.signed, action.reason)
    return query.get_run(context, run_id)


@router.post("/promote")
def promote(context: AppContext, run_id: RunId, action: Action) -> views.RunView:
    """A person takes a stopped or declined run into the open stage."""
    override.promote_run(context, run_id, action.signed, action.reason)
    return query.get_run(context, run_id)
