"""The tick: snapshot -> rules.plan -> actions applied. It takes up whatever an earlier one left."""

from sqlalchemy import Connection

from orchestrator.rules.plan import Action, plan
from orchestrator.rules.sharing import StartRun
from orchestrator.services.context import Context
from orchestrator.services.disk import watch_disk
from orchestrator.services.launch import launch_intents, record_intent
from orchestrator.services.orphans import sweep
from orchestrator.services.poison import guarded, is_passing, of_sound, tell
from orchestrator.services.reap import reap
from orchestrator.services.retention import retain
from orchestrator.services.settle import settle
from orchestrator.services.snapshot import load_snapshot
from orchestrator.services.vigil import keep_vigil, note_whole_tick


def tick(context: Context) -> None:
    """One pass: take in what ended, settle gates, start what fits. Safe to call again at any time.

    Raises what a database raises that is away; when it is back, nobody is judged by what it has missed.
    """
    try:
        _pass(context)
    except Exception as error:
        if is_passing(error):
            context.watch.looked = None
        raise
    note_whole_tick(context)


def _pass(context: Context) -> None:
    keep_vigil(context)
    watch_disk(context)
    reap(context)
    with guarded(context, "the look for orphans"):
        sweep(context)
    with guarded(context, "the retention of checkpoints"):
        retain(context)
    with context.database.read() as connection:
        due = _due(connection, context)
    if due or context.watch.unsaid:
        _apply(context)
    launch_intents(context)


def _due(connection: Connection, context: Context) -> list[Action]:
    """On a full disk nothing is started: runs wait where they are."""
    actions = of_sound(context, load_snapshot(connection, context), plan)
    if not context.watch.is_short:
        return actions
    return [action for action in actions if not isinstance(action, StartRun)]


def _apply(context: Context) -> None:
    """Plans again inside the transaction, so that what is applied is what the rows say now."""
    with context.database.write() as connection:
        settle(connection, context)
        for action in _due(connection, context):
            if isinstance(action, StartRun):
                with guarded(context, f"run {action.run_id}"), connection.begin_nested():
                    record_intent(connection, context, action, context.clock())
        tell(connection, context)
