"""Report the tokens and refusals of the last hours by the latest audit records in a file."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec

from authz_server.assembly import Services
from authz_server.audit.findings import UNREADABLE
from authz_server.settings import STREAMS

#: The file is read from its end, up to this size.
_MAXIMUM_BYTES = 4 * 1024 * 1024
_BLOCK_BYTES = 256 * 1024
_INTERVALS = 12
_TOKENS = 20
_ISSUED, _REFUSED = "token.issued", "token.refused"


class _Record(msgspec.Struct, frozen=True):
    """The read members of an audit record."""

    time: Annotated[datetime, msgspec.Meta(tz=True)]
    event: str = ""
    client_id: str = ""
    reason: str = ""
    count: int = 1
    scope: str = ""
    jti: str = ""
    kid: str = ""
    expires_at: int = 0
    source_address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """The tokens and refusals within a part of the time.

    Attributes:
        begins_at: its beginning.
        issued: the number of issued tokens.
        refused: the number of refused token requests.
    """

    begins_at: datetime
    issued: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalCount:
    """The number of refusals for one reason, by its name in ``authz_server.errors``."""

    reason: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentToken:
    """An issued token, as its record has it."""

    at: datetime
    client_id: str
    scope: str
    jti: str
    kid: str
    expires_at: int
    source_address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """The tokens and refusals that this node has recorded since a time.

    Attributes:
        since: the time from which the records were read.
        until: the present time.
        complete: True if the records reach back to the requested time.
        issued: the number of issued tokens.
        refused: the number of refused token requests.
        reasons: the reasons of the refusals, the most frequent first.
        intervals: the same numbers for equal parts of the time, the oldest first.
        tokens: the latest tokens, newest first.
    """

    since: datetime
    until: datetime
    complete: bool
    issued: int
    refused: int
    reasons: tuple[RefusalCount, ...]
    intervals: tuple[Interval, ...]
    tokens: tuple[RecentToken, ...]


def report_activity(
    services: Services, since: datetime, *, client_id: str | None = None
) -> Activity | None:
    """Return the recorded activity; None: the audit records go to no file here.

    Args:
        services: the parts of the server.
        since: the time of the oldest counted record.
        client_id: the client whose records are counted; None: all.

    Raises:
        OSError: the file cannot be read.
    """
    destination = services.settings.audit.destination
    if destination in STREAMS or not Path(destination).is_file():
        return None
    now = services.clock()
    records, complete = _read_since(Path(destination), since)
    wanted = [each for each in records if client_id in {None, each.client_id}]
    begins_at = since if complete or not records else max(since, records[-1].time)
    refused = Counter[str]()
    for each in wanted:
        if each.event == _REFUSED:
            refused[each.reason] += each.count
    issued = [each for each in wanted if each.event == _ISSUED]
    return Activity(
        since=begins_at,
        until=now,
        complete=complete,
        issued=len(issued),
        refused=refused.total(),
        reasons=tuple(RefusalCount(reason=name, count=n) for name, n in refused.most_common()),
        intervals=tuple(_count(wanted, begins_at, now)),
        tokens=tuple(map(_describe, issued[:_TOKENS])),
    )


def _count(records: list[_Record], begins_at: datetime, now: datetime) -> Iterator[Interval]:
    length = max((now - begins_at) / _INTERVALS, timedelta(seconds=1))
    issued, refused = [0] * _INTERVALS, [0] * _INTERVALS
    for each in records:
        place = min(max(int((each.time - begins_at) / length), 0), _INTERVALS - 1)
        if each.event == _ISSUED:
            issued[place] += 1
        else:
            refused[place] += each.count
    for place in range(_INTERVALS):
        yield Interval(
            begins_at=begins_at + length * place, issued=issued[place], refused=refused[place]
        )


def _describe(record: _Record) -> RecentToken:
    return RecentToken(
        at=record.time,
        client_id=record.client_id,
        scope=record.scope,
        jti=record.jti,
        kid=record.kid,
        expires_at=record.expires_at,
        source_address=record.source_address,
    )


def _read_since(path: Path, since: datetime) -> tuple[list[_Record], bool]:
    """Return the records, newest first, and whether they reach back to the time."""
    decode = msgspec.json.Decoder(_Record).decode
    found: list[_Record] = []
    for line in _lines_from_the_end(path):
        if line is None:
            return found, False
        # A search is faster than a parse.
        if _ISSUED.encode() not in line and _REFUSED.encode() not in line:
            continue
        try:
            record = decode(line)
        except UNREADABLE:
            continue
        if record.time < since:
            return found, True
        if record.event in {_ISSUED, _REFUSED}:
            found.append(record)
    # The whole file was read, which begins with the first record of the node.
    return found, True


def _lines_from_the_end(path: Path) -> Iterator[bytes | None]:
    """Yield the lines, the last one first; None after the largest part that is read."""
    rest = b""
    with path.open("rb") as file:
        place = file.seek(0, 2)
        least = max(place - _MAXIMUM_BYTES, 0)
        while place > least:
            begin = max(place - _BLOCK_BYTES, least)
            file.seek(begin)
            lines = (file.read(place - begin) + rest).split(b"\n")
            place, rest = begin, lines[0]
            yield from reversed(lines[1:])
    yield rest if not least else None
