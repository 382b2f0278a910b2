"""What workers alone may call, each with its own attempt's token."""

import asyncio
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from orchestrator.api.deps import bearer
from orchestrator.domain.errors import NotAllowed
from orchestrator.domain.ids import number_of
from orchestrator.protocol.report import Answer, Heartbeat, Report
from orchestrator.services.inbox import Inbox

M = TypeVar("M", bound=BaseModel)

LARGE_BYTES = 2**18
"""A body above this is read by another thread, so that the others are not kept waiting."""

router = APIRouter(prefix="/v1/attempts/{attempt_id}", tags=["workers"])


def _body(model: type[BaseModel]) -> dict[str, Any]:
    """The description of a body that the route reads by itself: straight from its bytes, which is faster."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@router.post("/reports", response_model=Answer, openapi_extra=_body(Report))
async def post_report(request: Request, attempt_id: str) -> Response:
    """Stores a report once and answers with the directive, after the commit."""
    return await _deliver(request, attempt_id, Report)


@router.post("/heartbeat", response_model=Answer, openapi_extra=_body(Heartbeat))
async def post_heartbeat(request: Request, attempt_id: str) -> Response:
    """Renews the lease and answers with the directive."""
    return await _deliver(request, attempt_id, Heartbeat)


async def _deliver(request: Request, attempt_id: str, model: type[Report] | type[Heartbeat]) -> Response:
    inbox: Inbox = request.app.state.inbox
    number, token = number_of("att", attempt_id), bearer(request.headers.get("authorization", ""))
    await _admit(inbox, number, token)
    message = await _parse(model, await request.body())
    answer = await asyncio.wrap_future(inbox.put(number, message, token))
    return Response(answer.model_dump_json(), media_type="application/json")


async def _admit(inbox: Inbox, attempt_id: int, token: str) -> None:
    """Before the body is read. Raises `NotAllowed` unless the token is this attempt's."""
    if not token:
        raise NotAllowed("send the token of this attempt: `Authorization: Bearer <token>`")
    if not inbox.knows(attempt_id, token):
        await run_in_threadpool(inbox.admit, attempt_id, token)


async def _parse(model: type[M], body: bytes) -> M:
    try:
        if len(body) > LARGE_BYTES:
            return await run_in_threadpool(model.model_validate_json, body)
        return model.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_input=False)) from None
