"""What workers alone may call, each with its own attempt's token."""

from fastapi import APIRouter, Depends

from orchestrator.api.deps import AppContext, AttemptId, require_worker
from orchestrator.protocol.report import Answer, Heartbeat, Report
from orchestrator.services.ingest import heartbeat, ingest

router = APIRouter(
    prefix="/v1/attempts/{attempt_id}", tags=["workers"], dependencies=[Depends(require_worker)]
)


@router.post("/reports")
def post_report(context: AppContext, attempt_id: AttemptId, report: Report) -> Answer:
    """Stores a report once and answers with the directive."""
    return ingest(context, attempt_id, report)


@router.post("/heartbeat")
def post_heartbeat(context: AppContext, attempt_id: AttemptId, beat: Heartbeat) -> Answer:
    """Renews the lease and answers with the directive."""
    return heartbeat(context, attempt_id, beat)
