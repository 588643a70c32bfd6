"""Count the tokens in force by the audit records, which go to a file."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from authz_server.operations.audit.files import lines_since, read_time
from authz_server.settings import LONGEST_LIFETIME_SECONDS, STREAMS, Settings
from authz_server.tokens.claims import read_instant

_LONGEST = timedelta(seconds=LONGEST_LIFETIME_SECONDS)
#: The tokens that a token was exchanged from: the client of each, by ``jti``.
Origins = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class IssuedTokens:
    """The tokens in force by a file of audit records.

    Attributes:
        count: their number.
        clients: the clients that they were issued to, sorted.
        last_expires_at: the expiry of the last of them; None: there are none.
        known_since: the time of the file's first record; None: it is empty.
    """

    count: int
    clients: tuple[str, ...]
    last_expires_at: datetime | None
    known_since: datetime | None


def find_issued_tokens(
    settings: Settings, is_wanted: Callable[[Mapping[str, Any], Origins], bool], now: datetime
) -> IssuedTokens | None:
    """Return the tokens in force; None: the audit records go to no file here.

    Of the file, its first record and those of the longest lifetime of a token are read. Malformed
    lines are skipped.

    Args:
        settings: name the file.
        is_wanted: returns whether to count the token of a record ``token.issued``, which was
            exchanged from some others.
        now: the present time.

    Raises:
        OSError: the file cannot be read.
    """
    destination = settings.audit.destination
    if destination in STREAMS or not Path(destination).is_file():
        return None
    expiries, clients = [], set()
    exchanged: dict[str, Origins] = {}
    first: datetime | None = None
    for record in _records(Path(destination), now - _LONGEST):
        first = first or read_time(record)
        jti, expires_at = str(record.get("jti")), record.get("expires_at")
        if record.get("event") == "token.exchanged":
            # No token in force is older, nor is one that it was exchanged from.
            if instant_of_record(record) > (now - _LONGEST).timestamp() * 1_000_000:
                exchanged[jti] = _find_origins(record, exchanged)
            continue
        if record.get("event") != "token.issued" or not isinstance(expires_at, int):
            continue
        if expires_at > now.timestamp() and is_wanted(record, exchanged.get(jti, {})):
            expiries.append(expires_at)
            clients.add(str(record.get("client_id", "")))
    return IssuedTokens(
        count=len(expiries),
        clients=tuple(sorted(clients)),
        last_expires_at=datetime.fromtimestamp(max(expiries), UTC) if expiries else None,
        known_since=first,
    )


def instant_of_record(record: Mapping[str, Any]) -> int:
    """Return when the token of a record was issued, in microseconds since 1970-01-01 UTC."""
    second = int(read_time(record).timestamp())
    return read_instant(str(record.get("jti")), second)


def _find_origins(record: Mapping[str, Any], exchanged: Mapping[str, Origins]) -> Origins:
    """Return what a token was exchanged from, by its record and those of the tokens before it."""
    found: dict[str, str] = {}
    for part in ("subject", "actor"):
        jti, client_id = record.get(f"{part}_jti"), record.get(f"{part}_client_id")
        if jti and client_id:
            found |= {**exchanged.get(str(jti), {}), str(jti): str(client_id)}
    return found


def _records(path: Path, since: datetime) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(lines_since(file, since)):
            # Parsing is slower than searching, so that only the first line is always parsed.
            if number and b'"token.issued"' not in line and b'"token.exchanged"' not in line:
                continue
            if (record := _read(line)) is not None:
                yield record


def _read(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line; None: an emergency order must not fail by such a line."""
    try:
        record: dict[str, Any] = json.loads(line)
        read_time(record)
        if isinstance(expires_at := record.get("expires_at"), int):
            # It may be larger than any time.
            datetime.fromtimestamp(expires_at, UTC)
    except (ValueError, OverflowError, OSError, RecursionError, KeyError, TypeError):
        return None
    return record
