"""Count the readers of the JWKS that have fetched it since a key was published."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from authz_server.assembly import Services
from authz_server.key_rings.consumers import load_jwks_readers, readiness
from keys.signing_key import SigningKey


@dataclass(frozen=True, slots=True)
class MissingConsumer:
    """A reader that has not fetched the JWKS since."""

    user_agent: str
    network: str
    last_fetched_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StandbyConsumers:
    """The readers of the JWKS, and whether they know the key that signs next.

    Attributes:
        kid: The key.
        published_at: When it entered the JWKS.
        window_seconds: How long a reader counts as one after its last fetch.
        gate: The setting ``keys.activation_gate``.
        seen: How many readers there are.
        fetched_since: How many of them know the key.
        missing: The others, the one longest silent first.
    """

    kid: str
    published_at: datetime | None
    window_seconds: int
    gate: str
    seen: int
    fetched_since: int
    missing: tuple[MissingConsumer, ...]


def count_consumers(services: Services, key: SigningKey | None) -> StandbyConsumers | None:
    """Return who has fetched the JWKS since ``key`` was published; None where no key waits."""
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
