"""What a serving process does for the key rings beside answering.

It moves the rings on as far as it has the power, says which epoch it has, and writes down who has
fetched the JWKS. All of it is safe on many nodes at once.
"""

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable
from datetime import datetime

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from authz_server.database.clock import read_database_time
from authz_server.database.orm import Database
from authz_server.key_rings.consumers import JwksReaders, purge_readers, write_readers
from authz_server.key_rings.nodes import forget_node, purge_reports
from authz_server.key_rings.store import SqlKeyStore
from authz_server.settings import KeySettings
from keys.errors import ClockOffError, KeysError, StoreUnavailable
from keys.lifecycle.rotator import Rotator
from keys.observer import Observer
from keys.ring import KeyRings

logger = logging.getLogger(__name__)

#: Who is recorded where a server moves a ring on because its time has come.
SERVER = "server"
LONGEST_REPORT_SECONDS = 30.0
LONGEST_TICK_SECONDS = 60.0
_HOST_CHARACTERS = 100


def tick_interval_seconds(settings: KeySettings) -> float:
    """Return how often rings are moved on: a tenth of their shortest duration, up to a minute."""
    durations = [LONGEST_TICK_SECONDS * 10]
    for name, ring in settings.rings.items():
        durations += [settings.prepublication_seconds(name), ring.rotation_interval_seconds]
    return max(min(durations) / 10, 1.0)


class KeyDuties:
    """The duties of one process.

    Args:
        database: where the readers and nodes are.
        store: where the rings are.
        key_rings: the rings as this process has them.
        rotator: moves rings on, with the powers of a server.
        readers: who has fetched the JWKS here.
        observer: hears of rings that could not be moved on.
        clock: returns the present time.
        snapshot_lifetime_seconds: a node that has not reported for so long counts as gone.
        monotonic: counts seconds.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        database: Database,
        store: SqlKeyStore,
        key_rings: KeyRings,
        rotator: Rotator,
        readers: JwksReaders,
        observer: Observer,
        clock: Callable[[], datetime],
        snapshot_lifetime_seconds: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._store = store
        self._key_rings = key_rings
        self._rotator = rotator
        self._readers = readers
        self._observer = observer
        self._clock = clock
        self._report_seconds = min(LONGEST_REPORT_SECONDS, snapshot_lifetime_seconds / 4)
        self._monotonic = monotonic
        self._process_id = 0
        self._node = ""
        self._reported: tuple[dict[str, int], bool] = ({}, False)
        self._report_due = 0.0

    @property
    def node(self) -> str:
        """The name of this process: host, process id, and what tells it from its predecessors."""
        if self._process_id != os.getpid():
            self._process_id = os.getpid()
            host = socket.gethostname()[:_HOST_CHARACTERS]
            self._node = f"{host}/{self._process_id}/{secrets.token_hex(3)}"
            self._reported = ({}, False)
        return self._node

    def report_node(self) -> None:
        """Report the epoch of each ring that this process has, and the offset of its clock.

        Done where an epoch is new, where the clock turned wrong or right, and every half minute.

        Raises:
            StoreUnavailable: the database cannot answer.
        """
        node, epochs, now = self.node, self._key_rings.epochs(), self._monotonic()
        news = (epochs, self._key_rings.is_clock_off)
        if not epochs or (news == self._reported and now < self._report_due):
            return
        self._store.report_node(node, epochs, self._key_rings.clock_offset_seconds)
        self._reported, self._report_due = news, now + self._report_seconds

    def tick(self) -> None:
        """Move every ring on: adopt, record, and make and fence as far as this process may.

        Raises:
            ClockOffError: this machine's clock is off; nothing was changed.
            KeysError: the last that went wrong with any of them; the others were moved on.
        """
        failure: KeysError | None = None
        for ring in self._key_rings.ring_names():
            try:
                self._rotator.tick(ring, actor=SERVER)
            except ClockOffError:
                raise  # so it is for every ring, and the alarm was raised
            except StoreUnavailable as error:
                logger.warning("the ring %s was not moved on: %s", ring, error)
                failure = error
            except KeysError as error:
                self._observer.alarm("rotation.failed", ring, str(error))
                failure = error
        if failure is not None:
            raise failure

    def write_readers(self) -> None:
        """Write down who has fetched the JWKS since the last time.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer; it is tried again.
        """
        fetched = self._readers.drain()
        if not fetched:
            return
        try:
            with self._database.transaction() as session:
                write_readers(session, fetched)
        except SQLAlchemyError:
            self._readers.restore(fetched)
            raise

    def purge(self, session: Session, now: datetime) -> int:
        """Delete what nodes and readers of the past have left by ``now``; return how many rows."""
        # Reports are dated by the database.
        reported_until = min(now, read_database_time(session))
        return purge_reports(session, reported_until) + purge_readers(session, now)

    def alarm(self, event: str, subject: str, detail: str) -> None:
        """Record and log an alarm that is not about one ring alone."""
        self._observer.alarm(event, subject, detail)

    def end(self) -> None:
        """Write down what is still held; say that this process signs no more.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        self.write_readers()
        if self._reported[0]:
            self._reported = ({}, False)
            with self._database.transaction() as session:
                forget_node(session, self.node)
