"""Questions to recorded curves: what a policy would have done, and how large seed noise is."""

from typing import Annotated

from fastapi import APIRouter, Body

from orchestrator.api.deps import AppContext
from orchestrator.protocol.wire import JsonObject
from orchestrator.services import views_backtest as views
from orchestrator.services.backtest import backtest
from orchestrator.services.calibrate import calibrate

router = APIRouter(prefix="/v1", tags=["backtests"])

Question = Annotated[JsonObject, Body(description="Policies, a history of curves, a plan")]


@router.post("/backtests")
def post_backtest(context: AppContext, document: Question) -> views.BacktestView:
    """Replays sets drawn from recorded curves under each policy. Writes nothing."""
    return backtest(context, document)


@router.post("/calibrations")
def post_calibration(context: AppContext, document: Question) -> views.CalibrationView:
    """Seed noise by step, and what a policy's margins are beside it. Writes nothing."""
    return calibrate(context, document)
