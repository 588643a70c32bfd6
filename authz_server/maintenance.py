"""What a running process does besides answering: stay fresh, sweep, note when secrets were used."""

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import or_, update
from sqlalchemy.exc import SQLAlchemyError

from authz_server.changes import ChangeFeed, purge_changes
from authz_server.clients.authentication import ClientAuthenticator
from authz_server.clients.models import ClientSecret
from authz_server.db import Database
from authz_server.settings import RevocationSettings
from authz_server.tokens.revocations import RevocationService
from keys.ring import KeyRings

logger = logging.getLogger(__name__)

_LAST_USED_INTERVAL_SECONDS = 60.0
_MAXIMUM_BATCHES = 10_000


class Maintenance:
    """A thread of its own in each process that serves; its work is safe on many nodes at once.

    Args:
        database: where to sweep.
        feed: is polled at its interval.
        key_rings: are read again at theirs.
        key_refresh_seconds: that interval.
        revocations: know what is due.
        authenticator: knows which secrets were used.
        settings: how often and how much to sweep.
        clock: returns the present time.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        database: Database,
        feed: ChangeFeed,
        key_rings: KeyRings,
        key_refresh_seconds: int,
        revocations: RevocationService,
        authenticator: ClientAuthenticator,
        settings: RevocationSettings,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._feed = feed
        self._key_rings = key_rings
        self._key_refresh_seconds = key_refresh_seconds
        self._revocations = revocations
        self._authenticator = authenticator
        self._settings = settings
        self._clock = clock
        self._process_id = 0
        self._stopped = threading.Event()
        self._starting = threading.Lock()

    def start(self) -> None:
        """Begin in this process, once; a process that was forked begins anew."""
        if self._process_id == os.getpid():
            return
        with self._starting:
            if self._process_id == os.getpid():
                return
            self._process_id = os.getpid()
            self._stopped = threading.Event()
            threading.Thread(target=self._run, name="maintenance", daemon=True).start()

    def stop(self) -> None:
        """End the thread and write down what it still holds."""
        self._stopped.set()
        self._attempt(self.flush_last_used)

    def sweep(self) -> int:
        """Delete everything that is due, in small batches; return how many rows.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer; what was deleted stays so.
        """
        total = 0
        for _ in range(_MAXIMUM_BATCHES):
            with self._database.transaction() as session:
                deleted = self._revocations.purge(session, self._settings.sweep_batch_rows)
                now = time.time_ns() // 1_000
                deleted += purge_changes(session, now, self._settings.sweep_batch_rows)
            total += deleted
            if not deleted:
                break
        return total

    def flush_last_used(self) -> None:
        """Write down when secrets were last used.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer; those times are lost.
        """
        used = self._authenticator.take_last_used()
        if not used:
            return
        with self._database.transaction() as session:
            # In one order everywhere, so that two nodes never wait for each other.
            for secret_id in sorted(used):
                at = datetime.fromtimestamp(used[secret_id], UTC)
                older = or_(ClientSecret.last_used_at.is_(None), ClientSecret.last_used_at < at)
                session.execute(
                    update(ClientSecret)
                    .where(ClientSecret.id == secret_id, older)
                    .values(last_used_at=at)
                )

    def _run(self) -> None:
        stopped = self._stopped
        sweep = self._settings.sweep_interval_seconds
        # Nodes that were started together do not sweep together.
        due = {
            self._key_rings.refresh: (self._key_refresh_seconds, float(self._key_refresh_seconds)),
            self.flush_last_used: (_LAST_USED_INTERVAL_SECONDS, _LAST_USED_INTERVAL_SECONDS),
            self.sweep: (sweep, random.uniform(0.5, 1.0) * sweep),  # noqa: S311 - no secret
        }
        started = time.monotonic()
        next_at = {act: started + first for act, (_, first) in due.items()}
        while not stopped.wait(self._feed.refresh_interval_seconds):
            self._attempt(self._feed.poll)
            now = time.monotonic()
            for act, (interval, _) in due.items():
                if now >= next_at[act]:
                    next_at[act] = now + interval
                    self._attempt(act)

    def _attempt(self, act: Callable[[], object]) -> None:
        try:
            act()
        except SQLAlchemyError as error:
            logger.warning("%s has to wait: %s", act.__name__, type(error).__name__)
        except Exception:
            logger.exception("%s failed", act.__name__)
