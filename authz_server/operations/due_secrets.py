"""List the secrets that end soon, and those that were made with another pepper."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, literal, or_, select, tuple_
from sqlalchemy.orm import Session, load_only

from authz_server.assembly import Services
from authz_server.clients.models import Client, ClientSecret, Kind
from authz_server.clients.secret_rotation import is_replaced
from authz_server.operations.client_conditions import is_active
from authz_server.operations.client_search import LISTS_CLIENTS

_CHUNK = 500
_COLUMNS = load_only(
    ClientSecret.client_id,
    ClientSecret.description,
    ClientSecret.created_at,
    ClientSecret.expires_at,
    ClientSecret.ended_at,
    ClientSecret.last_used_at,
    ClientSecret.last_used_from,
    ClientSecret.pepper_fingerprint,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DueSecret:
    """A secret that ends soon, or that was made with another pepper.

    Attributes:
        id: the client or resource server.
        name: its name.
        secret_id: the secret's id.
        ends_at: the time at which it ends; None: it does not end.
        days_left: the whole days until then.
        last_used_at: the time of its last use; None: never.
        last_used_from: the IP address of the sender of that request.
        replaced: whether another secret works longer, and this one was not used since.
        other_pepper: whether it was made with another pepper than that of the settings, so that it
            is refused.
    """

    id: str
    name: str
    secret_id: str
    description: str
    ends_at: datetime | None
    days_left: int | None
    last_used_at: datetime | None
    last_used_from: str | None
    replaced: bool
    other_pepper: bool = False


class DuePlace(NamedTuple):
    """The place of a secret in the list.

    Attributes:
        ends_at: the time at which it ends, in ISO 8601; None: it was made with another pepper.
        id: the client or resource server.
        secret_id: the secret's id.
    """

    ends_at: str | None
    id: str
    secret_id: str


def place_of(due: DueSecret) -> DuePlace:
    """Return the place of a secret in the list."""
    ends_at = None if due.other_pepper or due.ends_at is None else due.ends_at.isoformat()
    return DuePlace(ends_at, due.id, due.secret_id)


def list_due_secrets(services: Services, *, kind: Kind, within: timedelta) -> tuple[DueSecret, ...]:
    """Return the secrets of enabled clients or resource servers that end soon, the first one first.

    Before them stand those that were made with another pepper, also if they do not end soon.

    Args:
        services: the parts of the server.
        kind: clients or resource servers.
        within: the time from now within which they end.
    """
    return list_some_due(services, kind=kind, within=within)


def list_some_due(
    services: Services,
    *,
    kind: Kind,
    within: timedelta,
    after: DuePlace | None = None,
    limit: int | None = None,
) -> tuple[DueSecret, ...]:
    """Return a part of the list of :func:`list_due_secrets`.

    Args:
        services: the parts of the server.
        kind: clients or resource servers.
        within: the time from now within which they end.
        after: the place after which the list begins; None: at its beginning.
        limit: the largest number of secrets; None: all.
    """
    now, fingerprint = services.corrected_clock(), services.secrets.fingerprint
    with services.database.reading() as session:
        query, others = _working(kind, now), _find_other_peppers(session, fingerprint)
        rows: list[Any] = []
        if others and (after is None or after.ends_at is None):
            of_others = query.where(ClientSecret.pepper_fingerprint.in_(others))
            rows += session.execute(_sorted(of_others, after).limit(limit))
        if limit is None or len(rows) < limit:
            soon = _ending(query, now + within, others)
            behind = None if after is None or after.ends_at is None else after
            rest = None if limit is None else limit - len(rows)
            ordered = _sorted(soon, behind, ClientSecret.expires_at.expression)
            rows += session.execute(ordered.limit(rest))
        return tuple(_describe_all(session, rows, kind, fingerprint, now))


def _working(kind: Kind, now: datetime) -> Any:  # noqa: ANN401 - a query of two entities
    """Return the query of secrets that work, of clients or resource servers that are enabled."""
    has_not_expired = or_(Client.expires_at.is_(None), Client.expires_at > now)
    works = (is_active(now), or_(ClientSecret.expires_at.is_(None), ClientSecret.expires_at > now))
    query: Any = select(ClientSecret, Client.name).join(Client, Client.id == ClientSecret.client_id)
    query = query.where(Client.kind == kind, Client.enabled.is_(True), has_not_expired, *works)
    return _of_kind(query.options(_COLUMNS), kind)


def _of_kind(query: Any, kind: Kind) -> Any:  # noqa: ANN401 - a query of any rows
    return query.execution_options(**{LISTS_CLIENTS: kind == "client"})


def _find_other_peppers(session: Session, fingerprint: str) -> Sequence[str]:
    """Return the fingerprints of other peppers that secrets have; an index has each of them."""
    column = ClientSecret.__table__.c.pepper_fingerprint
    found, last = [], session.scalar(select(func.min(column)))
    while last is not None:
        found.append(last)
        last = session.scalar(select(func.min(column)).where(column > last))
    return [each for each in found if each != fingerprint]


def _ending(query: Select[Any], until: datetime, others: Sequence[str]) -> Select[Any]:
    """Return the query of those that end until a time, and were made with no other pepper."""
    pepper = ClientSecret.pepper_fingerprint
    query = query.where(ClientSecret.expires_at <= until)
    return query.where(or_(pepper.is_(None), pepper.not_in(others))) if others else query


def _sorted(
    query: Select[Any], after: DuePlace | None, ends_at: ColumnElement[Any] | None = None
) -> Select[Any]:
    """Return the query in the order of the ends, if any, and the ids, behind a place."""
    first = () if ends_at is None else (ends_at,)
    columns = (*first, ClientSecret.client_id.expression, ClientSecret.id.expression)
    query = query.order_by(*columns)
    if after is None:
        return query
    end = () if after.ends_at is None else (datetime.fromisoformat(after.ends_at),)
    values = [
        literal(value, column.type)
        for column, value in zip(columns, (*end, after.id, after.secret_id), strict=True)
    ]
    # SQLite begins in an index at an expression of its own, and not at one of a tuple.
    return query.where(columns[0] >= values[0], tuple_(*columns) > tuple_(*values))


def _describe_all(
    session: Session, rows: Sequence[Any], kind: Kind, fingerprint: str, now: datetime
) -> Iterable[DueSecret]:
    ids = list(dict.fromkeys(secret.client_id for secret, _ in rows))
    secrets: dict[str, list[ClientSecret]] = {}
    for start in range(0, len(ids), _CHUNK):
        of_clients = ClientSecret.client_id.in_(ids[start : start + _CHUNK])
        query = _of_kind(select(ClientSecret).options(_COLUMNS).where(of_clients), kind)
        for each in session.scalars(query):
            secrets.setdefault(each.client_id, []).append(each)
    for secret, name in rows:
        yield DueSecret(
            id=secret.client_id,
            name=name,
            secret_id=secret.id,
            description=secret.description,
            ends_at=secret.expires_at,
            days_left=(secret.expires_at - now).days if secret.expires_at else None,
            last_used_at=secret.last_used_at,
            last_used_from=secret.last_used_from,
            replaced=is_replaced(secret, secrets.get(secret.client_id, ()), now),
            other_pepper=secret.pepper_fingerprint not in {None, fingerprint},
        )
