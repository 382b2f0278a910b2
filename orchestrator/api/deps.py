"""Named dependencies: the context, ids, pages, and who is asking."""

import hmac
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request

from orchestrator.domain.errors import NotAllowed
from orchestrator.domain.ids import number_of
from orchestrator.services.context import Context


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


AppContext = Annotated[Context, Depends(_context)]


def _experiment_id(experiment_id: Annotated[str, Path()]) -> int:
    return number_of("exp", experiment_id)


def _run_id(run_id: Annotated[str, Path()]) -> int:
    return number_of("run", run_id)


def _decision_id(decision_id: Annotated[str, Path()]) -> int:
    return number_of("dec", decision_id)


def _reference_id(reference_id: Annotated[str, Path()]) -> int:
    return number_of("ref", reference_id)


ExperimentId = Annotated[int, Depends(_experiment_id)]
RunId = Annotated[int, Depends(_run_id)]
DecisionId = Annotated[int, Depends(_decision_id)]
ReferenceId = Annotated[int, Depends(_reference_id)]


@dataclass(frozen=True)
class PageQuery:
    limit: int
    cursor: str | None


def _page(
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> PageQuery:
    return PageQuery(limit, cursor)


PageParams = Annotated[PageQuery, Depends(_page)]

Bearer = Annotated[str, Header(alias="Authorization")]


def bearer(header: str) -> str:
    """The token of an `Authorization: Bearer ...` header, or an empty string."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def require_person(request: Request, authorization: Bearer = "") -> None:
    """Passes a person's token; anybody where the service has none, which only loopback may."""
    token: str | None = request.app.state.token
    if token is not None and not hmac.compare_digest(bearer(authorization).encode(), token.encode()):
        raise NotAllowed("send `Authorization: Bearer <token>`; for the CLI, set ASSAY_TOKEN")
