"""Who has fetched the JWKS since a key was published, for programs and in words."""

from datetime import timedelta
from typing import Any

from authz_server.assembly import Services
from authz_server.cli.output import timestamp
from authz_server.key_rings.consumers import load_jwks_readers, readiness
from keys.signing_key import SigningKey

#: So many readers are named to a person; JSON names all.
NAMED_READERS = 10
_DAY_SECONDS = 86_400


def describe_readers(services: Services, key: SigningKey | None) -> dict[str, Any] | None:
    """Return who has fetched the JWKS since ``key`` was published; None where no key waits."""
    if key is None:
        return None
    settings = services.settings.keys
    start = services.clock() - timedelta(seconds=settings.reader_window_seconds)
    with services.database.reading() as session:
        readers = load_jwks_readers(session, start)
    spread = settings.timing().notice_seconds
    count = readiness(readers, key.published_at or key.created_at, start, spread_seconds=spread)
    return {
        "kid": key.kid,
        "published_at": timestamp(key.published_at),
        "window_seconds": settings.reader_window_seconds,
        "gate": settings.activation_gate,
        "seen": count.seen,
        "fetched_since": count.fetched_since,
        "missing": [
            {
                "user_agent": each.name.user_agent,
                "network": each.name.network,
                "last_fetched_at": timestamp(each.last_fetched_at),
            }
            for each in count.missing
        ],
    }


def readers_in_words(record: dict[str, Any] | None) -> list[str]:
    """Return lines about what :func:`describe_readers` returned."""
    if record is None:
        return ["Nobody needs to fetch a key: none waits to sign."]
    if not record["seen"]:
        return [f"No reader of the JWKS was seen in {_window(record)}."]
    missing = record["missing"]
    lines = [
        f"{record['fetched_since']} of {record['seen']} readers of the JWKS seen in "
        f"{_window(record)} have fetched it since {record['published_at']}"
        + ("; missing:" if missing else ".")
    ]
    lines += [
        f"  {each['user_agent'] or 'no user agent'} ({each['network'] or 'unknown network'}), "
        f"last at {each['last_fetched_at']}"
        for each in missing[:NAMED_READERS]
    ]
    if len(missing) > NAMED_READERS:
        lines.append(f"  and {len(missing) - NAMED_READERS} more")
    if missing and record["gate"] == "binding":
        lines.append("Until they have, the key does not begin to sign by itself.")
    return lines


def _window(record: dict[str, Any]) -> str:
    seconds = int(record["window_seconds"])
    if seconds % _DAY_SECONDS:
        return f"{seconds} s"
    days = seconds // _DAY_SECONDS
    return f"{days} day{'' if days == 1 else 's'}"
