"""Decisions and slots: what was decided, and where."""

from typing import Annotated

from fastapi import APIRouter, Query

from orchestrator.api.deps import AppContext, DecisionId, PageParams
from orchestrator.domain.ids import number_of
from orchestrator.services import query, views

router = APIRouter(prefix="/v1", tags=["decisions"])


@router.get("/decisions")
def list_decisions(
    context: AppContext,
    page: PageParams,
    experiment_id: str | None = None,
    run_id: str | None = None,
    kind: Annotated[list[str] | None, Query()] = None,
    shadow: bool = False,
) -> views.Page[views.DecisionView]:
    """Oldest first; `kind` may be given more than once. `shadow`: the second policy's, not acted upon."""
    return query.list_decisions(
        context,
        experiment_id=None if experiment_id is None else number_of("exp", experiment_id),
        run_id=None if run_id is None else number_of("run", run_id),
        kinds=kind or (),
        limit=page.limit,
        cursor=page.cursor,
        shadow=shadow,
    )


@router.get("/decisions/{decision_id}")
def get_decision(context: AppContext, decision_id: DecisionId) -> views.DecisionView:
    return query.get_decision(context, decision_id)


@router.get("/slots")
def list_slots(context: AppContext) -> views.Page[views.SlotView]:
    return query.list_slots(context)
