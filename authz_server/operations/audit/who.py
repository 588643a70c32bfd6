"""Answer who could use a scope at a time, and who had a token with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from authz_server.assembly import Services
from authz_server.operations.audit.files import find_audit_files, find_first_time
from authz_server.operations.audit.grants import Grant, find_grants
from authz_server.operations.audit.search import iterate_trail
from authz_server.operations.audit.spellings import find_scopes
from authz_server.operations.stored_records import RecordFilters
from authz_server.settings import LONGEST_LIFETIME_SECONDS

_LONGEST = timedelta(seconds=LONGEST_LIFETIME_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldTokens:
    """The tokens of a client that were in force at the time.

    Attributes:
        client_id: the client.
        tokens: their number.
        revoked: the number of those that a revocation of the token had ended.
        first_issued_at: when the first of them was issued.
        last_issued_at: when the last of them was issued.
        scopes: the scopes in question that they had, as they spell them.
    """

    client_id: str
    tokens: int
    revoked: int
    first_issued_at: datetime
    last_issued_at: datetime
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WhoAnswer:
    """The clients that could use scopes at a time, and those that had tokens with them.

    Attributes:
        at: the time.
        scopes: the scopes, by their canonical names.
        could: the clients that could obtain a token with one of them.
        unknown: the clients whose state at the time is not known.
        held: the clients that had such tokens, by the records of issued tokens.
        files: the files of records that were read; empty: no issued token is known.
        complete: whether the records begin early enough to have every such token.
    """

    at: datetime
    scopes: tuple[str, ...]
    could: tuple[Grant, ...]
    unknown: tuple[str, ...]
    held: tuple[HeldTokens, ...]
    files: tuple[str, ...]
    complete: bool


def find_who(
    services: Services, scope: str, at: datetime, *, files: Sequence[Path] = ()
) -> WhoAnswer:
    """Return who could use a scope at a time, and who had a token with it.

    Args:
        services: the parts of the server.
        scope: a scope in any spelling; ``disburse`` and ``disburse/*`` stand for all below.
        at: the time.
        files: the files of audit records, the oldest first; empty: those of the settings.

    Raises:
        OSError: a file cannot be read.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    paths = tuple(files) or find_audit_files(services.settings.audit.destination)
    with services.database.reading() as session:
        scopes = find_scopes(session, scope)
        grants = find_grants(session, scopes, at)
    spellings = frozenset[str]().union(*scopes.values())
    first_at = find_first_time(paths)
    return WhoAnswer(
        at=at,
        scopes=tuple(sorted(scopes)),
        could=grants.could,
        unknown=grants.unknown,
        held=_find_held(services, spellings, at, paths),
        files=tuple(map(str, paths)),
        complete=first_at is not None and first_at <= at - _LONGEST,
    )


def _find_held(
    services: Services, spellings: frozenset[str], at: datetime, paths: Sequence[Path]
) -> tuple[HeldTokens, ...]:
    window = RecordFilters(since=at - _LONGEST, until=at + timedelta(microseconds=1))
    found: dict[str, list[tuple[datetime, frozenset[str], str]]] = {}
    revoked: set[str] = set()
    for record in iterate_trail(services, window, paths):
        if record.event == "token.revoked":
            revoked.add(record.subject if record.source == "stored" else record.detail["jti"])
            continue
        if record.event != "token.issued":
            continue
        line = record.detail
        held = spellings.intersection(str(line.get("scope", "")).split(" "))
        expires_at = line.get("expires_at")
        if held and isinstance(expires_at, int) and expires_at > at.timestamp():
            tokens = found.setdefault(record.subject, [])
            tokens.append((record.at, held, str(line.get("jti"))))
    return tuple(
        HeldTokens(
            client_id=client_id,
            tokens=len(tokens),
            revoked=sum(jti in revoked for _, _, jti in tokens),
            first_issued_at=min(issued for issued, _, _ in tokens).astimezone(UTC),
            last_issued_at=max(issued for issued, _, _ in tokens).astimezone(UTC),
            scopes=tuple(sorted(set[str]().union(*(held for _, held, _ in tokens)))),
        )
        for client_id, tokens in sorted(found.items())
    )
