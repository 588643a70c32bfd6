"""Count the readers of the JWKS that have fetched a published key."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from authz_server.assembly import Services
from authz_server.key_rings.consumers import load_jwks_readers, readiness
from keys.signing_key import SigningKey


@dataclass(frozen=True, slots=True)
class MissingConsumer:
    """A reader that has not fetched the key."""

    user_agent: str
    network: str
    last_fetched_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StandbyConsumers:
    """The readers of the JWKS, and the number that have fetched the key that signs next.

    Attributes:
        kid: the key.
        published_at: the time of its publication.
        window_seconds: the time after its last fetch for which a reader is counted.
        gate: the setting ``keys.activation_gate``.
        seen: the number of readers.
        fetched_since: the number of readers that have fetched the key.
        missing: the other readers, the least recent first.
    """

    kid: str
    published_at: datetime | None
    window_seconds: int
    gate: str
    seen: int
    fetched_since: int
    missing: tuple[MissingConsumer, ...]


def count_consumers(services: Services, key: SigningKey | None) -> StandbyConsumers | None:
    """Return the readers of the JWKS since ``key`` was published; None if ``key`` is None."""
    if key is None:
        return None
    settings = services.settings.keys
    start = services.clock() - timedelta(seconds=settings.reader_window_seconds)
    with services.database.reading() as session:
        readers = load_jwks_readers(session, start)
    spread = settings.timing().notice_seconds
    count = readiness(readers, key.published_at or key.created_at, start, spread_seconds=spread)
    return StandbyConsumers(
        kid=key.kid,
        published_at=key.published_at,
        window_seconds=settings.reader_window_seconds,
        gate=settings.activation_gate,
        seen=count.seen,
        fetched_since=count.fetched_since,
        missing=tuple(
            MissingConsumer(each.name.user_agent, each.name.network, each.last_fetched_at)
            for each in count.missing
        ),
    )
