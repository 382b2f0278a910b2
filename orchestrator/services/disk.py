"""Room for another worker: what a full disk would end is not started."""

import logging

from orchestrator.services.context import Context
from orchestrator.services.vigil import tell_all

ENOUGH_AGAIN = 1.1
"""Times the least that must be free before a disk that was short is taken for good again: room wavers."""

log = logging.getLogger(__name__)


def watch_disk(context: Context) -> None:
    """Notes whether there is room, and tells every open experiment when that changes."""
    free, least = _free(context), context.limits.min_free_bytes
    wanted = least * ENOUGH_AGAIN if context.watch.is_short else least
    is_short = free is None or free < wanted
    if is_short == context.watch.is_short:
        return
    left = "does not answer" if free is None else f"has {free / 2**30:.2f} GiB free"
    does = "no worker is started" if is_short else "workers are started again"
    text = f"the disk of {context.home} {left}, {least / 2**30:.2f} GiB are asked for: {does}"
    log.log(logging.WARNING if is_short else logging.INFO, "%s", text)
    tell_all(context, "disk", text)
    context.watch.is_short = is_short


def _free(context: Context) -> int | None:
    try:
        return context.free_bytes()
    except OSError:
        return None
