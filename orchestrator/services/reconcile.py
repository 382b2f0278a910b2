"""The tick: snapshot -> rules.plan -> actions applied. It takes up whatever an earlier one left."""

from orchestrator.rules.plan import plan
from orchestrator.rules.sharing import StartRun
from orchestrator.services.context import Context
from orchestrator.services.launch import launch_intents, record_intent
from orchestrator.services.reap import reap
from orchestrator.services.settle import settle
from orchestrator.services.snapshot import load_snapshot


def tick(context: Context) -> None:
    """One pass: take in what ended, settle gates, start what fits. Safe to call again at any time."""
    reap(context)
    with context.database.read() as connection:
        due = plan(load_snapshot(connection, context))
    if due:
        _apply(context)
    launch_intents(context)


def _apply(context: Context) -> None:
    """Plans again inside the transaction, so that what is applied is what the rows say now."""
    with context.database.write() as connection:
        settle(connection, context)
        for action in plan(load_snapshot(connection, context)):
            if isinstance(action, StartRun):
                record_intent(connection, context, action, context.clock())
