"""Of the services that share a PostgreSQL database one ticks: the one that has the lead.

A lead is a lease on a row, under an epoch. Every write of a tick renews it in its own transaction or is
undone, so that a leader that was paused for longer than its lease changes nothing when it comes back.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Connection

from orchestrator.domain.errors import Busy, NotLeading
from orchestrator.engines.guarded import GuardedEngine
from orchestrator.services import place as places
from orchestrator.services.context import Context, Watch
from orchestrator.store import leader
from orchestrator.store.database import Database
from orchestrator.store.leader import Lead, Place

log = logging.getLogger(__name__)


class Leadership:
    """One service's hold on the lead, used by the thread that ticks.

    `holder` names this process and no other, ever. `elapsed` counts seconds, through sleep too.
    """

    def __init__(
        self,
        database: Database,
        holder: str,
        address: str,
        lasts: timedelta,
        elapsed: Callable[[], float],
        place: Place,
    ) -> None:
        self._database = database
        self._holder = holder
        self._address = address
        self._lasts = lasts
        self._elapsed = elapsed
        self._place = place
        self._refusal: str | None = None
        self._renewed = 0.0
        self.lead: Lead | None = None
        """The lead as this service last knew it."""

    def hold(self) -> bool:
        """Whether this service may tick. Renews the lead when a third is over, takes one that is free.

        Raises what a database raises that is away.
        """
        if self.lead is not None and self._elapsed() - self._renewed < self._lasts.total_seconds() / 3:
            return True
        began = self._elapsed()
        try:
            self._renew_or_take()
        except Busy:  # whoever holds the row also holds the lead
            self._lose()
        self._renewed = began
        return self.lead is not None

    def check(self, connection: Connection) -> None:
        """Renews the lead in the transaction of a write: nobody takes it before that commits.

        Raises `NotLeading` when it is over.
        """
        if self.lead is None or not leader.renew(connection, self.lead, self._lasts):
            self._lose()
            raise NotLeading("another service took the lead, or may have: nothing was written")

    def ask(self) -> None:
        """Passes while the lead holds. Raises `NotLeading`."""
        with self._database.read() as connection:
            holds = self.lead is not None and leader.holds(connection, self.lead)
        if not holds:
            self._lose()
            raise NotLeading("another service took the lead, or may have: nothing was done to a worker")

    def give_up(self) -> None:
        """Lets another service take the lead at once."""
        if self.lead is not None:
            with self._database.beside() as connection:
                leader.give_up(connection, self.lead)
            self.lead = None

    def _renew_or_take(self) -> None:
        taken = None
        with self._database.beside() as connection:
            if self.lead is not None and leader.renew(connection, self.lead, self._lasts):
                return
            self._lose()
            found = leader.read(connection)
            if found is None or not found.is_live:
                self._heed(places.refusal(connection, found, self._place))
                if self._refusal is None:
                    taken = leader.take(connection, self._holder, self._address, self._lasts, self._place)
        self.lead = taken  # committed by now

    def _heed(self, refusal: str | None) -> None:
        """What forbids the lead is logged once."""
        if refusal not in (None, self._refusal):
            log.error("this service does not lead: %s", refusal)
        self._refusal = refusal

    def _lose(self) -> None:
        if self.lead is not None:
            log.warning("the lead is lost: its lease ran out, or another service took it")
        self.lead = None


class LeaderTick:
    """A tick that does nothing unless this service leads, and then writes nothing once it does not."""

    def __init__(
        self,
        context: Context,
        leadership: Leadership,
        tick: Callable[[Context], None],
        announce: Callable[[], None],
    ) -> None:
        """`announce` makes this service the one that workers find; it is called at each tick."""
        self._leadership = leadership
        self._tick = tick
        self._announce = announce
        self._began: Lead | None = None
        self._context = replace(
            context,
            database=context.database.guarded(leadership.check),
            engine=GuardedEngine(context.engine, leadership.ask),
        )

    def __call__(self) -> None:
        """One tick, or none. Losing the lead half way is no error: what was committed was right."""
        if not self._leadership.hold():
            return
        if self._began != self._leadership.lead:
            self._begin()
        self._announce()
        try:
            self._tick(self._context)
        except NotLeading as lost:
            log.warning("the tick broke off: %s", lost.detail)

    def _begin(self) -> None:
        """A leader that is new remembers nothing: its first tick gives every live attempt a whole lease."""
        self._began = self._leadership.lead
        self._context = replace(self._context, watch=Watch())
        if self._began is not None:
            log.info("this service leads from now on, epoch %d", self._began.epoch)
