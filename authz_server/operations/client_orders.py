"""Orders of lists of clients, and the places in them at which pages begin."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Select,
    Subquery,
    and_,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.orm import Session

from authz_server.clients.models import Client, ClientSecret
from authz_server.scopes.uses import ScopeUse

ClientSort = Literal["id", "name", "organisation", "created", "last-used"]
#: How many of the latest uses are read for each client of a page.
_USES_PER_CLIENT = 10


class Place(NamedTuple):
    """The place of a client in an order.

    Attributes:
        key: what the clients are sorted by, as the database has it; a time in ISO 8601; None: the
            client was never used, or the order is by id.
        client_id: its id.
    """

    key: str | None
    client_id: str


@dataclass(frozen=True)
class ClientOrder:
    """An order of clients; clients with the same key are in the order of their ids.

    Indexes have the same expressions, so that the database reads a page without other clients.

    Attributes:
        sort: what the clients are sorted by; those that were never used come first by last use.
        descending: whether the order is reversed.
        since: by last use, the clients that were used since then alone; None: all.
        only: returns the condition that a column is the id of one of few clients, whose uses alone
            are read; None: there are many.
    """

    sort: ClientSort = "id"
    descending: bool = False
    since: datetime | None = None
    only: Callable[[Any], ColumnElement[bool]] | None = None

    @cached_property
    def key(self) -> ColumnElement[Any] | None:
        """The expression by which the clients are sorted; None: their ids alone."""
        match self.sort:
            case "name":
                return func.lower(Client.name)
            case "organisation":
                return func.lower(Client.organisation)
            case "created":
                return Client.created_at.expression
            case "last-used":
                return self._latest.c.at
        return None

    def select(self, query: Select[Any]) -> Select[Any]:
        """Return a query of ids of clients in this order, with the key of each.

        Args:
            query: the query of the ids, with its conditions.
        """
        if self.key is None:
            return query.order_by(*self._directed(Client.id.expression))
        query = query.add_columns(self.key)
        if self.sort != "last-used":
            return query.order_by(*self._directed(self.key, Client.id.expression))
        # The uses are read once, and not for each client. Databases differ in the place of NULL.
        of_client = self._latest.c.client_id == Client.id
        query = query.join(self._latest, of_client, isouter=self.since is None)
        is_used = self.key.is_not(None)
        return query.order_by(*self._directed(is_used, self.key, Client.id.expression))

    def place(self, client_id: str, *key: Any) -> Place:  # noqa: ANN401 - a value of any column
        """Return the place of a row of the query."""
        of_client = next(iter(key), None)
        if isinstance(of_client, datetime):
            of_client = of_client.isoformat()
        return Place(of_client, client_id)

    def is_behind(self, place: Place) -> ColumnElement[bool]:
        """Return the condition of the clients that follow a place."""
        if self.key is None:
            return self._follows((Client.id.expression, place.client_id))
        if place.key is None:
            later = and_(self.key.is_(None), self._follows((Client.id.expression, place.client_id)))
            return later if self.descending else or_(self.key.is_not(None), later)
        key: Any = place.key
        if self.sort in {"created", "last-used"}:
            key = datetime.fromisoformat(key)
        later = self._follows((self.key, key), (Client.id.expression, place.client_id))
        is_nullable = self.sort == "last-used" and self.descending
        return or_(self.key.is_(None), later) if is_nullable else later

    def _follows(self, *pairs: tuple[ColumnElement[Any], Any]) -> ColumnElement[bool]:
        """Return whether columns are, in turn, behind values."""
        columns = tuple_(*(column for column, _ in pairs))
        values = tuple_(*(literal(value, column.type) for column, value in pairs))
        column, value = pairs[0]
        # SQLite begins in an index at an expression of its own, and not at one of a tuple.
        if self.descending:
            return and_(column <= value, columns < values)
        return and_(column >= value, columns > values)

    def _directed(self, *keys: ColumnElement[Any]) -> Iterable[ColumnElement[Any]]:
        return (each.desc() if self.descending else each for each in keys)

    @cached_property
    def _latest(self) -> Subquery:
        """The latest use of each client that was used."""
        at = ClientSecret.last_used_at.label("at")
        by_secret = select(ClientSecret.client_id, at).where(ClientSecret.last_used_at.is_not(None))
        by_token = select(ScopeUse.client_id, ScopeUse.last_at).where(ScopeUse.kind == "asked")
        if self.only is not None:
            by_secret = by_secret.where(self.only(ClientSecret.client_id))
            by_token = by_token.where(self.only(ScopeUse.client_id))
        if self.since is not None:
            by_secret = by_secret.where(ClientSecret.last_used_at >= self.since)
            by_token = by_token.where(ScopeUse.last_at >= self.since)
        use = union_all(by_secret, by_token).subquery().c
        latest = select(use.client_id, func.max(use.at).label("at")).group_by(use.client_id)
        return latest.subquery()


def read_places(
    session: Session, query: Select[Any], order: ClientOrder, after: Place | None, limit: int
) -> Sequence[Place]:
    """Return the places of up to ``limit`` clients, in an order.

    By last use, the clients that were never used and those of the latest uses are found without
    the latest use of every client.

    Args:
        session: a database session.
        query: the query of the ids of clients.
        order: the order.
        after: the place after which the page begins; None: the first page.
        limit: the largest number of clients.
    """
    is_unused = after is not None and after.key is None
    if order.sort != "last-used" or order.only is not None:
        return _read(session, query, order, after, limit)
    if is_unused or (after is None and not order.descending):
        found = _read_unused(session, query, order, after, limit)
        if order.descending or len(found) == limit:
            return found
    elif order.descending:
        since = _find_time(session, after, _USES_PER_CLIENT * limit)
        found = _read(session, query, replace(order, since=since), after, limit)
        if since is None or len(found) == limit:
            return found
    return _read(session, query, order, after, limit)


def _read(
    session: Session, query: Select[Any], order: ClientOrder, after: Place | None, limit: int
) -> Sequence[Place]:
    ordered = order.select(query).limit(limit)
    if after is not None:
        ordered = ordered.where(order.is_behind(after))
    return [order.place(*row) for row in session.execute(ordered)]


def _read_unused(
    session: Session, query: Select[Any], order: ClientOrder, after: Place | None, limit: int
) -> Sequence[Place]:
    """Return the places of clients that were never used."""
    secret = exists().where(
        ClientSecret.client_id == Client.id, ClientSecret.last_used_at.is_not(None)
    )
    use = exists().where(ScopeUse.client_id == Client.id, ScopeUse.kind == "asked")
    by_id = ClientOrder("id", order.descending)
    return _read(session, query.where(~secret, ~use), by_id, after, limit)


def _find_time(session: Session, after: Place | None, number: int) -> datetime | None:
    """Return a time since which there are so many uses up to a place; None: all are read.

    Uses outside the limits of a caller count too: it is only a guess of how far to look.
    """
    secret, use = ClientSecret.__table__.c, ScopeUse.__table__.c
    of_secret = select(secret.last_used_at).where(secret.last_used_at.is_not(None))
    of_token = select(use.last_at).where(use.kind == "asked")
    times = []
    for query, at in ((of_secret, secret.last_used_at), (of_token, use.last_at)):
        if after is not None and after.key is not None:
            query = query.where(at <= datetime.fromisoformat(after.key))  # noqa: PLW2901
        times.append(session.scalar(query.order_by(at.desc()).offset(number).limit(1)))
    since = max((each for each in times if each is not None), default=None)
    if since is None or after is None:
        return since
    # Behind the latest uses, those of all clients are read faster at once.
    later = session.scalar(of_token.with_only_columns(func.count()).where(use.last_at >= since))
    return since if (later or 0) <= _USES_PER_CLIENT * number else None
