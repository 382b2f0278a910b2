"""Whether the service is up, and whether it can work."""

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import text

from orchestrator.api.deps import AppContext

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: str = "ok"


@router.get("/healthz")
def healthz() -> Health:
    """The process answers."""
    return Health()


@router.get("/readyz")
def readyz(context: AppContext) -> Health:
    """The database answers too."""
    with context.database.read() as connection:
        connection.execute(text("SELECT 1"))
    return Health()
