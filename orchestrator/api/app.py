"""The application: routers, one error handler, and authentication for every route that is not health."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.middleware.trustedhost import TrustedHostMiddleware

from orchestrator.api import (
    backtests,
    decisions,
    experiments,
    health,
    policies,
    problems,
    references,
    reports,
    runs,
    workers,
)
from orchestrator.api.deps import require_person
from orchestrator.api.limits import BodyLimit
from orchestrator.services.context import Context
from orchestrator.services.inbox import Inbox

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")


def create_app(
    context: Context,
    *,
    token: str | None = None,
    allowed_hosts: Sequence[str] = (),
    body_limit: int = 16 * 2**20,
    ingest_queue: int = 256,
) -> FastAPI:
    """The API over a context. A browser on another page cannot reach it: hosts are listed, CORS is off."""
    schema = None if token else "/openapi.json"  # with a token, nothing is told without it
    app = FastAPI(
        title="Assay", version=version("assay"), openapi_url=schema, redoc_url=None, lifespan=_lifespan
    )
    app.state.inbox = Inbox(context, ingest_queue)
    app.state.context = context
    app.state.token = token
    app.include_router(health.router)
    app.include_router(workers.router)
    for router in (
        experiments.router,
        reports.router,
        runs.router,
        decisions.router,
        policies.router,
        references.router,
        backtests.router,
    ):
        app.include_router(router, dependencies=[Depends(require_person)])
    problems.install(app)
    app.add_middleware(BodyLimit, limit=body_limit)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOCAL_HOSTS, *allowed_hosts])
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """At the end, what workers have sent is written and answered before anything is closed."""
    yield
    await run_in_threadpool(app.state.inbox.close)
