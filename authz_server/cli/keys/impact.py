"""What withdrawing a key means to those who hold its tokens, as far as that is known."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from authz_server.audit.sink import is_stream
from authz_server.cli.output import timestamp
from authz_server.settings import Settings
from keys.signing_key import RingSnapshot, SigningKey

#: So many clients are named to a person; JSON names all.
NAMED_CLIENTS = 10


@dataclass(frozen=True, slots=True)
class IssuedTokens:
    """What a file of audit records tells of tokens in force.

    Attributes:
        count: How many have not expired.
        clients: Whom they were issued to, sorted.
        last_expires_at: When the last of them expires.
        known_since: When the file's first record was written; None: it is empty.
    """

    count: int
    clients: tuple[str, ...]
    last_expires_at: datetime | None
    known_since: datetime | None


def count_tokens(path: Path, kids: Iterable[str], now: datetime) -> IssuedTokens:
    """Read a file of audit records for tokens signed by ``kids`` that have not expired.

    The file is read line by line, however long it is; lines that broke off are passed over.

    Raises:
        OSError: the file cannot be read.
    """
    wanted, expiries, clients = frozenset(kids), [], set()
    first: str | None = None
    for record in _records(path):
        first = first or record.get("time")
        if record.get("event") == "token.issued" and record.get("kid") in wanted:
            expires_at = int(record["expires_at"])
            if expires_at > now.timestamp():
                expiries.append(expires_at)
                clients.add(str(record["client_id"]))
    return IssuedTokens(
        count=len(expiries),
        clients=tuple(sorted(clients)),
        last_expires_at=datetime.fromtimestamp(max(expiries), UTC) if expiries else None,
        known_since=datetime.fromisoformat(first) if first else None,
    )


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file):
            # Parsing costs far more than looking; only the first line is wanted whatever it is.
            if number and b'"token.issued"' not in line:
                continue
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record


def describe_impact(
    settings: Settings, ring: RingSnapshot, keys: Iterable[SigningKey], now: datetime
) -> dict[str, Any]:
    """Return what is known of the tokens that ``keys`` of ``ring`` signed, and the honest bounds.

    JWTs are not stored: the audit records alone can be counted, where they go to a file.
    """
    affected = tuple(keys)
    lifetime = timedelta(seconds=ring.maximum_lifetime_seconds)
    snapshot = timedelta(seconds=settings.keys.snapshot_lifetime_seconds)
    signed = [key for key in affected if key.activate_at is not None and key.activate_at <= now]
    bound = max(((_stop(key, now, snapshot) + lifetime) for key in signed), default=None)
    known = _known(settings, [key.kid for key in affected], now, lifetime)
    return known | {
        "no_token_lives_after": timestamp(bound),
        "introspection_refuses_within_seconds": settings.keys.refresh_interval_seconds,
        "jwks_maximum_age_seconds": settings.keys.jwks_maximum_age_seconds,
    }


def _stop(key: SigningKey, now: datetime, snapshot: timedelta) -> datetime:
    """Return the latest moment at which a token of ``key`` can have been signed."""
    if key.stopped_at is None:
        return now
    if key.fenced_at is not None:
        return max(key.stopped_at, key.fenced_at)
    return min(key.stopped_at + snapshot, now)


def _known(
    settings: Settings, kids: list[str], now: datetime, lifetime: timedelta
) -> dict[str, Any]:
    destination = settings.audit.destination
    nothing: dict[str, Any] = {
        "tokens": None,
        "clients": None,
        "last_expires_at": None,
        "records": None,
        "records_since": None,
        "complete": False,
    }
    if is_stream(destination) or not Path(destination).is_file():
        return nothing
    issued = count_tokens(Path(destination), kids, now)
    return {
        "tokens": issued.count,
        "clients": list(issued.clients),
        "last_expires_at": timestamp(issued.last_expires_at),
        "records": destination,
        "records_since": timestamp(issued.known_since),
        "complete": issued.known_since is not None and issued.known_since <= now - lifetime,
    }


def impact_in_words(impact: dict[str, Any]) -> list[str]:
    """Return lines about what :func:`describe_impact` returned of a key that is revoked."""
    refused = impact["introspection_refuses_within_seconds"]
    obeyed = impact["jwks_maximum_age_seconds"]
    return [
        *tokens_in_words(impact),
        f"Introspection on every node refuses it within {refused} s.",
        "Verifiers that never ask go on accepting it, forgeries too, until they fetch the JWKS:",
        f"  at most {obeyed} s where they obey its max-age, often 24 h where they do not.",
    ]


def tokens_in_words(impact: dict[str, Any]) -> list[str]:
    """Return the lines of it that are about tokens in force."""
    lines = [*_tokens_in_words(impact)]
    if impact["no_token_lives_after"]:
        lines.append(f"No token of it lives after {impact['no_token_lives_after']}.")
    return lines


def _tokens_in_words(impact: dict[str, Any]) -> Iterator[str]:
    if impact["tokens"] is None:
        yield "Issued tokens cannot be counted here: the audit records do not go to a file."
        return
    clients = impact["clients"]
    named = ", ".join(clients[:NAMED_CLIENTS])
    more = len(clients) - NAMED_CLIENTS
    named += f" and {more} more" if more > 0 else ""
    tokens = f"{impact['tokens']} of its tokens are in force by {impact['records']}"
    if not clients:
        yield f"{tokens}."
    else:
        yield f"{tokens}, of {len(clients)} clients: {named}."
        yield f"The last of those expires at {impact['last_expires_at']}."
    if not impact["complete"]:
        since = impact["records_since"] or "this moment"
        yield f"That file begins at {since}, so there may be more; each node has its own file."
