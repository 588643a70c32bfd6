"""Key jobs of a serving process, safe on many nodes at once.

They run rotation ticks, report the epochs that the node holds, and write the consumers of the JWKS.
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

from authz_server.audit.events import SignatureMade
from authz_server.audit.notifier import AuditUnavailable, Notify
from authz_server.database.clock import read_database_time
from authz_server.database.orm import Database
from authz_server.key_rings.consumers import JwksReaders, purge_readers, write_readers
from authz_server.key_rings.nodes import forget_node, purge_reports
from authz_server.key_rings.store import SqlKeyStore
from authz_server.settings import KeySettings
from keys.errors import ClockOffError, KeysError, StoreUnavailable
from keys.events import Alarm
from keys.lifecycle.rotator import Rotator
from keys.ring import KeyRings

logger = logging.getLogger(__name__)

#: The actor recorded for changes by a server's tick.
SERVER = "server"
LONGEST_REPORT_SECONDS = 30.0
#: A change of the offset that cut-offs have to include soon.
NEW_OFFSET_SECONDS = 1.0
LONGEST_TICK_SECONDS = 60.0
_HOST_CHARACTERS = 100


def tick_interval_seconds(settings: KeySettings) -> float:
    """Return the interval of ticks: a tenth of the rings' shortest duration, up to a minute."""
    durations = [LONGEST_TICK_SECONDS * 10]
    for name, ring in settings.rings.items():
        durations += [settings.prepublication_seconds(name), ring.rotation_interval_seconds]
    return max(min(durations) / 10, 1.0)


class KeyJobs:
    """The key jobs of one process.

    Args:
        database: stores consumers and nodes.
        store: stores the rings.
        key_rings: the rings as this process holds them.
        rotator: rotates rings with a server's permissions.
        readers: the consumers seen by this process.
        notify: receives failed rotations.
        clock: returns the present time.
        snapshot_lifetime_seconds: a node without a report for this time is gone.
        monotonic: returns monotonic seconds.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        database: Database,
        store: SqlKeyStore,
        key_rings: KeyRings,
        rotator: Rotator,
        readers: JwksReaders,
        notify: Notify,
        clock: Callable[[], datetime],
        snapshot_lifetime_seconds: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._store = store
        self._key_rings = key_rings
        self._rotator = rotator
        self._readers = readers
        self._notify = notify
        self._clock = clock
        self._report_seconds = min(LONGEST_REPORT_SECONDS, snapshot_lifetime_seconds / 4)
        self._monotonic = monotonic
        self._process_id = 0
        self._node = ""
        self._reported: tuple[dict[str, int], bool] = ({}, False)
        self._reported_offset = 0.0
        self._report_due = 0.0

    @property
    def node(self) -> str:
        """The name of this process: host, process id and a random suffix."""
        if self._process_id != os.getpid():
            self._process_id = os.getpid()
            host = socket.gethostname()[:_HOST_CHARACTERS]
            self._node = f"{host}/{self._process_id}/{secrets.token_hex(3)}"
            self._reported = ({}, False)
        return self._node

    def report_node(self) -> None:
        """Report the epoch of each ring that this process holds, and the offset of its clock.

        Reports when an epoch changes, when the clock becomes wrong or right or has moved by more
        than a second, and every 30 seconds.

        Raises:
            StoreUnavailable: the database cannot answer.
        """
        node, epochs, now = self.node, self._key_rings.epochs(), self._monotonic()
        news, offset = (epochs, self._key_rings.is_clock_off), self._key_rings.clock_offset_seconds
        is_news = news != self._reported or abs(offset - self._reported_offset) > NEW_OFFSET_SECONDS
        if not epochs or not (is_news or now >= self._report_due):
            return
        self._store.report_node(node, epochs, offset)
        self._reported, self._reported_offset = news, offset
        self._report_due = now + self._report_seconds

    def tick(self) -> None:
        """Run a tick on every ring, as far as this process has the permissions.

        Raises:
            ClockOffError: this machine's clock is off; withdrawals were followed on every ring.
            KeysError: the last error of any ring; the other rings were processed.
        """
        self._on_every_ring(self._rotator.tick)

    def withdraw(self) -> None:
        """Follow withdrawals at the backend of every ring, which need no clock.

        Raises:
            KeysError: the last error of any ring; the other rings were processed.
        """
        self._on_every_ring(self._rotator.withdraw)

    def _on_every_ring(self, act: Callable[..., object]) -> None:
        failure: KeysError | None = None
        for ring in self._key_rings.ring_names():
            try:
                act(ring, actor=SERVER)
            except ClockOffError as error:
                # The rotator raises the alarm, and follows the withdrawals of this ring.
                failure = error
            except StoreUnavailable as error:
                logger.warning("the tick of ring %s failed: %s", ring, error)
                failure = error
            except KeysError as error:
                self._notify(Alarm("rotation.failed", ring, str(error)))
                failure = error
        if failure is not None:
            raise failure

    def write_readers(self) -> None:
        """Write the consumers seen since the last write.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer; the next call tries again.
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

    def end(self) -> None:
        """Write pending consumers, and delete this node's report.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        self.write_readers()
        if self._reported[0]:
            self._reported = ({}, False)
            with self._database.transaction() as session:
                forget_node(session, self.node)


def record_proof(notify: Notify, kid: str, request_id: str) -> None:
    """Record a signature that checked readiness, to account for it in the Vault's audit log."""
    event = SignatureMade(
        client_id=SERVER, purpose="readiness", kid=kid, backend_request_id=request_id
    )
    try:
        notify(event)
    except AuditUnavailable as error:
        logger.warning("the signature %s is not recorded: %s", request_id, error.detail)


def purge_key_rows(session: Session, now: datetime) -> int:
    """Delete rows of nodes and readers that expired by ``now``; return how many."""
    # Reports are dated by the database.
    reported_until = min(now, read_database_time(session))
    return purge_reports(session, reported_until) + purge_readers(session, now)
