"""Plans and experiments."""

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.api.deps import AppContext, ExperimentId, PageParams
from orchestrator.protocol.wire import MAX_INTEGER, JsonObject
from orchestrator.services import override, query, views, views_compare
from orchestrator.services.compare import compare
from orchestrator.services.preview import preview
from orchestrator.services.replay import replay
from orchestrator.services.submit import submit
from orchestrator.services.views_replay import ReplayView

router = APIRouter(prefix="/v1", tags=["experiments"])

Document = Annotated[JsonObject, Body(description="An experiment's spec")]
Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)]


class Action(BaseModel):
    """A person's action: who, and why."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="", max_length=2000)
    author: str = Field(default="user", max_length=60, pattern=r"^[A-Za-z0-9._@-]+$")

    @property
    def signed(self) -> str:
        return f"user:{self.author}"


@router.post("/plans")
def post_plan(context: AppContext, document: Document) -> views.PlanView:
    """The preview of a spec. Writes nothing."""
    return preview(context, document)


@router.post("/experiments", status_code=201)
def post_experiment(
    context: AppContext, document: Document, response: Response, idempotency_key: Key = None
) -> views.ExperimentView:
    """Accepts a spec."""
    experiment = query.get_experiment(context, submit(context, document, idempotency_key))
    response.headers["Location"] = f"/v1/experiments/{experiment.id}"
    return experiment


@router.get("/experiments")
def list_experiments(
    context: AppContext, page: PageParams, status: str | None = None, name: str | None = None
) -> views.Page[views.ExperimentView]:
    """Newest first."""
    return query.list_experiments(context, limit=page.limit, cursor=page.cursor, status=status, name=name)


@router.get("/experiments/{experiment_id}")
def get_experiment(context: AppContext, experiment_id: ExperimentId) -> views.ExperimentView:
    return query.get_experiment(context, experiment_id)


@router.post("/experiments/{experiment_id}/cancel")
def cancel(context: AppContext, experiment_id: ExperimentId, action: Action) -> views.ExperimentView:
    """Ends the experiment and every run in it."""
    override.cancel_experiment(context, experiment_id, action.signed, action.reason)
    return query.get_experiment(context, experiment_id)


class Pin(Action):
    """The stored curve that is to stand in for the control, and who says so, and why."""

    reference: str = Field(min_length=1, max_length=63)


@router.post("/experiments/{experiment_id}/reference")
def pin(context: AppContext, experiment_id: ExperimentId, action: Pin) -> views.ExperimentView:
    """Lets a stored curve stand in for the control, should that have died or still die."""
    override.pin_reference(context, experiment_id, action.reference, action.signed, action.reason)
    return query.get_experiment(context, experiment_id)


@router.get("/experiments/{experiment_id}/replay")
def get_replay(context: AppContext, experiment_id: ExperimentId) -> ReplayView:
    """Every decision made once more from the recorded rows, beside the log."""
    return replay(context, experiment_id)


@router.post("/experiments/{experiment_id}/pause")
def pause(context: AppContext, experiment_id: ExperimentId, action: Action) -> views.ExperimentView:
    """Starts no further worker for it."""
    override.pause_experiment(context, experiment_id, action.signed, action.reason)
    return query.get_experiment(context, experiment_id)


@router.post("/experiments/{experiment_id}/resume")
def resume(context: AppContext, experiment_id: ExperimentId, action: Action) -> views.ExperimentView:
    override.resume_experiment(context, experiment_id, action.signed, action.reason)
    return query.get_experiment(context, experiment_id)


@router.get("/experiments/{experiment_id}/runs")
def list_runs(
    context: AppContext, experiment_id: ExperimentId, page: PageParams
) -> views.Page[views.RunView]:
    return query.list_runs(context, experiment_id, limit=page.limit, cursor=page.cursor)


@router.get("/experiments/{experiment_id}/events")
def list_events(
    context: AppContext,
    experiment_id: ExperimentId,
    page: PageParams,
    after: Annotated[int, Query(ge=0, le=MAX_INTEGER)] = 0,
) -> views.Page[views.EventView]:
    """What happened, oldest first; `after` is an event's id, as the cursor is."""
    start = min(int(page.cursor), MAX_INTEGER) if page.cursor and page.cursor.isdecimal() else after
    return query.list_events(context, experiment_id, after=start, limit=page.limit)


@router.get("/experiments/{experiment_id}/compare")
def get_compare(
    context: AppContext, experiment_id: ExperimentId, axis: Literal["step", "tokens"] = "step"
) -> views_compare.CompareView:
    """Every run against the control at matched points."""
    return compare(context, experiment_id, axis)
