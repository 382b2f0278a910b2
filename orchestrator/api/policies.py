"""Policies: documents that a spec may name, and what such a document may say."""

from typing import Annotated

from fastapi import APIRouter, Body, Query, Response

from orchestrator.api.deps import AppContext
from orchestrator.protocol.wire import MAX_INTEGER, JsonObject
from orchestrator.rules.schema import policy_schema
from orchestrator.services import policies, views

router = APIRouter(prefix="/v1/policies", tags=["policies"])

Document = Annotated[JsonObject, Body(description="A policy; `/v1/policies/schema` says what may be in it")]


@router.post("", status_code=201, responses={200: {"description": "It was there already"}})
def post_policy(context: AppContext, document: Document, response: Response) -> views.PolicyView:
    """Records a policy; the same again is answered with the one that is there, and 200."""
    policy, is_new = policies.add_policy(context, document)
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/policies/{policy.name}?version={policy.version}"
    return policy


@router.get("")
def list_policies(context: AppContext) -> views.Page[views.PolicyView]:
    """The newest version of each."""
    return policies.list_policies(context)


@router.get("/schema")
def get_schema() -> JsonObject:
    """The JSON Schema of a policy document, with every criterion that is registered here."""
    return policy_schema()


@router.get("/{name}")
def get_policy(
    context: AppContext, name: str, version: Annotated[int | None, Query(ge=1, le=MAX_INTEGER)] = None
) -> views.PolicyView:
    """The newest version, or the one that is asked for."""
    return policies.get_policy(context, name, version)
