"""Starts that cannot be made now: the engine is away, or the data folder takes no files. They wait."""

from collections.abc import Sequence

from orchestrator.services.context import Context, Wait
from orchestrator.services.vigil import put_off, tell_all
from orchestrator.store.records import AttemptRecord

LONGEST_WAIT = 60.0
"""Seconds between two tries at most."""


def wait(context: Context, attempt: AttemptRecord, error: Exception) -> None:
    """The attempt is tried again, ever later; open experiments are told when the first one has to wait."""
    waits = context.watch.waits
    if not waits:
        text = f"a worker cannot be started ({error}): it waits, and nothing counts against its run"
        tell_all(context, "outage", text)
    times = waits[attempt.key].times + 1 if attempt.key in waits else 0
    later = min(2.0 ** min(times, 10), LONGEST_WAIT) if times else 0.0
    waits[attempt.key] = Wait(times, context.monotonic() + later)
    put_off(context, [attempt])


def due(context: Context, intents: Sequence[AttemptRecord]) -> list[AttemptRecord]:
    """Those to be tried now; the leases of the others do not run out meanwhile."""
    waits, now = context.watch.waits, context.monotonic()
    for key in waits.keys() - {attempt.key for attempt in intents}:
        del waits[key]
    later = [a for a in intents if a.key in waits and waits[a.key].due > now]
    put_off(context, later)
    return [a for a in intents if a not in later]
