"""References: stored curves that are not rerun."""

from typing import Annotated

from fastapi import APIRouter, Body, Query, Response

from orchestrator.api.deps import AppContext, PageParams, ReferenceId
from orchestrator.protocol.wire import JsonObject
from orchestrator.services import views
from orchestrator.services.reference_views import (
    ReferenceSummary,
    ReferenceView,
    get_reference,
    list_references,
)
from orchestrator.services.references import create_reference

router = APIRouter(prefix="/v1/references", tags=["references"])

Document = Annotated[
    JsonObject, Body(description="A curve; or `run_id`; or `experiment_id`, with `variant` and `seed`")
]


@router.post("", status_code=201, responses={200: {"description": "It was there already"}})
def post_reference(context: AppContext, document: Document, response: Response) -> ReferenceView:
    """Stores a curve; the same again under the same name is answered with the one that is there, and 200."""
    id_, is_new = create_reference(context, document)
    reference = get_reference(context, id_)
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/references/{reference.id}"
    return reference


@router.get("")
def get_references(
    context: AppContext, page: PageParams, name: Annotated[str | None, Query(max_length=63)] = None
) -> views.Page[ReferenceSummary]:
    """Newest first, without their curves."""
    return list_references(context, limit=page.limit, cursor=page.cursor, name=name)


@router.get("/{reference_id}")
def get_one_reference(context: AppContext, reference_id: ReferenceId) -> ReferenceView:
    return get_reference(context, reference_id)
