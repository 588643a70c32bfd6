"""Readiness of consumers for the standby key, checked before a planned activation."""

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from authz_server.database.orm import Database
from authz_server.key_rings.consumers import load_jwks_readers, readiness
from authz_server.settings import KeySettings
from keys.errors import StoreUnavailable
from keys.lifecycle import rules as rotation
from keys.lifecycle.state import Readiness
from keys.signing_key import RingSnapshot, SigningKey


def find_next_key(ring: RingSnapshot, now: datetime) -> SigningKey | None:
    """Return the published key that signs next: the lowest version above the active one."""
    return rotation.find_next_key(ring.keys, now)


class StandbyReadiness:
    """Finds the consumers that have not fetched the standby key.

    Args:
        database: stores the consumers.
        settings: the consumer window, and whether activation waits for consumers.
        clock: returns the present time.
    """

    def __init__(
        self, database: Database, settings: KeySettings, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._settings = settings
        self._clock = clock

    def __call__(self, ring: RingSnapshot) -> Readiness:
        """Return the missing consumers, and whether activation waits for them.

        Raises:
            StoreUnavailable: the consumers cannot be read.
        """
        now = self._clock()
        binding = self._settings.activation_gate == "binding"
        key = find_next_key(ring, now)
        if key is None or key.published_at is None:
            return Readiness(binding=binding)
        window_start = now - timedelta(seconds=self._settings.reader_window_seconds)
        try:
            with self._database.reading() as session:
                readers = load_jwks_readers(session, window_start)
        except SQLAlchemyError as error:
            raise StoreUnavailable("the database cannot list the consumers") from error
        spread = self._settings.timing().notice_seconds
        found = readiness(readers, key.published_at, window_start, spread_seconds=spread)
        return Readiness(
            missing=tuple(str(reader.name) for reader in found.missing), binding=binding
        )
