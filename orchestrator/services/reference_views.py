"""What is read of references."""

import math
from datetime import datetime

from pydantic import JsonValue

from orchestrator.domain.ids import number_of, spell
from orchestrator.domain.references import unrecorded
from orchestrator.protocol.wire import JsonObject
from orchestrator.services import views
from orchestrator.services.context import Context
from orchestrator.services.query import page
from orchestrator.services.references import need_reference
from orchestrator.store.curves import CurveHead, list_curves
from orchestrator.store.records import StoredCurveRow


class ReferenceSummary(views.View):
    """A reference as lists show it."""

    id: str
    name: str
    description: str
    source: JsonObject
    """`kind` import or run, and where the curve came from; `claimed` and `like` are a person's word."""
    identity: JsonObject
    unrecorded: list[str]
    """What a comparison needs and nobody recorded: with any of it, comparisons are invalid."""
    evaluation_count: int
    first_step: int
    last_step: int
    best_eval_loss: float | None
    last_eval_loss: float
    notes: list[str]
    """What was dropped, thinned or taken for something else."""
    content_hash: str
    created_at: datetime


class ReferenceView(ReferenceSummary):
    """A reference with its whole curve. What nobody recorded is not there; what is not finite is a string."""

    evaluations: list[JsonObject]
    train_loss: list[list[JsonValue]]
    """(step, training loss) between evaluations."""


def list_references(
    context: Context, *, limit: int, cursor: str | None, name: str | None
) -> views.Page[ReferenceSummary]:
    """Newest first."""
    before = number_of("ref", cursor) if cursor else None
    with context.database.read() as connection:
        found = list_curves(connection, before=before, limit=limit + 1, name=name)
    return page([ReferenceSummary.model_validate(_summary(row)) for row in found], limit, "id")


def get_reference(context: Context, id_: int) -> ReferenceView:
    """Raises `Missing`."""
    with context.database.read() as connection:
        row = need_reference(connection, id_)
    whole = {"evaluations": row.evaluations, "train_loss": row.train_loss}
    return ReferenceView.model_validate(_summary(row) | whole)


def _summary(row: CurveHead | StoredCurveRow) -> dict[str, object]:
    losses = [float(str(evaluation["eval_loss"])) for evaluation in row.evaluations]
    return {
        "id": spell("ref", row.id),
        "name": row.name,
        "description": row.description,
        "source": row.source,
        "identity": row.identity or {},
        "unrecorded": list(unrecorded(row.identity or {})),
        "evaluation_count": len(losses),
        "first_step": row.evaluations[0]["step"],
        "last_step": row.evaluations[-1]["step"],
        "best_eval_loss": min((loss for loss in losses if math.isfinite(loss)), default=None),
        "last_eval_loss": losses[-1],
        "notes": row.notes,
        "content_hash": row.content_hash,
        "created_at": row.created_at,
    }
