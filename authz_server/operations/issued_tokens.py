"""Count the tokens in force by the audit records, which go to a file."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from authz_server.audit.destination import is_stream
from authz_server.settings import Settings


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
    settings: Settings, is_wanted: Callable[[Mapping[str, Any]], bool], now: datetime
) -> IssuedTokens | None:
    """Return the tokens in force; None: the audit records go to no file here.

    The file is read line by line, and malformed lines are skipped.

    Args:
        settings: name the file.
        is_wanted: returns whether to count the token of a record ``token.issued``.
        now: the present time.

    Raises:
        OSError: the file cannot be read.
    """
    destination = settings.audit.destination
    if is_stream(destination) or not Path(destination).is_file():
        return None
    expiries, clients = [], set()
    first: str | None = None
    for record in _records(Path(destination)):
        first = first or record["time"]
        expires_at = record.get("expires_at")
        if record.get("event") != "token.issued" or not isinstance(expires_at, int):
            continue
        if expires_at > now.timestamp() and is_wanted(record):
            expiries.append(expires_at)
            clients.add(str(record.get("client_id", "")))
    return IssuedTokens(
        count=len(expiries),
        clients=tuple(sorted(clients)),
        last_expires_at=datetime.fromtimestamp(max(expiries), UTC) if expiries else None,
        known_since=datetime.fromisoformat(first) if first else None,
    )


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file):
            # Parsing is slower than searching, so that only the first line is always parsed.
            if number and b'"token.issued"' not in line:
                continue
            # What cannot be read is passed over: an emergency order must not fail by it.
            with suppress(ValueError, RecursionError, KeyError, TypeError):
                record = json.loads(line)
                datetime.fromisoformat(record["time"])
                yield record
