"""Decisions, policies and slots: what was decided, by which rules, and where."""

from typing import Annotated

from fastapi import APIRouter, Query

from orchestrator.api.deps import AppContext, DecisionId, PageParams
from orchestrator.domain.errors import Missing
from orchestrator.domain.ids import number_of
from orchestrator.domain.suggest import did_you_mean
from orchestrator.services import query, views

router = APIRouter(prefix="/v1", tags=["decisions"])


@router.get("/decisions")
def list_decisions(
    context: AppContext,
    page: PageParams,
    experiment_id: str | None = None,
    run_id: str | None = None,
    kind: Annotated[list[str] | None, Query()] = None,
) -> views.Page[views.DecisionView]:
    """Oldest first; `kind` may be given more than once."""
    return query.list_decisions(
        context,
        experiment_id=None if experiment_id is None else number_of("exp", experiment_id),
        run_id=None if run_id is None else number_of("run", run_id),
        kinds=kind or (),
        limit=page.limit,
        cursor=page.cursor,
    )


@router.get("/decisions/{decision_id}")
def get_decision(context: AppContext, decision_id: DecisionId) -> views.DecisionView:
    return query.get_decision(context, decision_id)


@router.get("/policies")
def list_policies(context: AppContext) -> views.Page[views.PolicyView]:
    return query.list_policies(context)


@router.get("/policies/{name}")
def get_policy(context: AppContext, name: str) -> views.PolicyView:
    found = {policy.name: policy for policy in query.list_policies(context).items}
    if name not in found:
        raise Missing(f"there is no policy `{name[:63]}`{did_you_mean(name, found)}")
    return found[name]


@router.get("/slots")
def list_slots(context: AppContext) -> views.Page[views.SlotView]:
    return query.list_slots(context)
