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
from authz_server.operations.id_lists import SEEN_SPELLINGS
from authz_server.scopes.uses import ScopeUse

ClientSort = Literal["id", "name", "organisation", "created", "last-used"]
#: How many uses are read for each client of a page by last use; ten times as many if they fill it
#: in part.
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


class Window(NamedTuple):
    """A time in which clients were used last; None: it has no such end."""

    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class ClientOrder:
    """An order of clients; clients with the same key are in the order of their ids.

    Indexes have the same expressions, so that the database reads a page without other clients.

    Attributes:
        sort: what the clients are sorted by; those that were never used come first by last use.
        descending: whether the order is reversed.
        only: returns the condition that a column is the id of one of few clients, whose uses alone
            are read; None: there are many.
        used_before: the time before which all clients of the query were used last, if they were;
            None: it is not known.
        id_column: the column of the ids that is read in their order; None: that of the clients.
        spellings: the query of the spellings of scopes whose uses count; None: all do.
        window: by last use, the clients that were used last in this time alone; None: all, also
            those that were never used.
    """

    sort: ClientSort = "id"
    descending: bool = False
    only: Callable[[Any], ColumnElement[bool]] | None = None
    used_before: datetime | None = None
    id_column: ColumnElement[Any] | None = None
    spellings: Select[Any] | None = None
    window: Window | None = None

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
            return query.order_by(*self._directed(self._id))
        query = query.add_columns(self.key)
        if self.sort != "last-used":
            return query.order_by(*self._directed(self.key, Client.id.expression))
        # The uses are read once, and not for each client. Databases differ in the place of NULL.
        of_client = self._latest.c.client_id == Client.id
        query = query.join(self._latest, of_client, isouter=self.window is None)
        until = None if self.window is None else self.window.until
        # The query may have these conditions itself.
        if until is not None and (self.used_before is None or until < self.used_before):
            secret, token = ClientSecret.last_used_at, ScopeUse.last_at
            query = query.where(~_has_secret(secret > until), ~_has_use(token > until))
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
            return self._follows((self._id, place.client_id))
        if place.key is None:
            later = and_(self.key.is_(None), self._follows((Client.id.expression, place.client_id)))
            return later if self.descending else or_(self.key.is_not(None), later)
        key: Any = place.key
        if self.sort in {"created", "last-used"}:
            key = datetime.fromisoformat(key)
        later = self._follows((self.key, key), (Client.id.expression, place.client_id))
        is_nullable = self.sort == "last-used" and self.descending
        return or_(self.key.is_(None), later) if is_nullable else later

    @property
    def _id(self) -> ColumnElement[Any]:
        return Client.id.expression if self.id_column is None else self.id_column

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
        if self.only is None and self.spellings is not None:
            # An index has the uses of a scope by their time.
            by_token = by_token.where(ScopeUse.scope.in_(self.spellings))
        if self.only is not None:
            by_secret = by_secret.where(self.only(ClientSecret.client_id))
            by_token = by_token.where(self.only(ScopeUse.client_id))
        since, until = self.window or Window()
        if since is not None:
            by_secret = by_secret.where(ClientSecret.last_used_at >= since)
            by_token = by_token.where(ScopeUse.last_at >= since)
        if until is not None:
            by_secret = by_secret.where(ClientSecret.last_used_at <= until)
            by_token = by_token.where(ScopeUse.last_at <= until)
        use = union_all(by_secret, by_token).subquery().c
        latest = select(use.client_id, func.max(use.at).label("at")).group_by(use.client_id)
        return latest.subquery()


def read_places(  # noqa: PLR0913 - what, in which order, from where
    session: Session,
    query: Select[Any],
    order: ClientOrder,
    after: Place | None,
    limit: int | None,
    *,
    offset: int = 0,
) -> Sequence[Place]:
    """Return the places of up to ``limit`` clients, in an order.

    By last use, a page is read without the latest use of every client: those that were never used
    by their ids, and the others in windows of time.

    Args:
        session: a database session.
        query: the query of the ids of clients.
        order: the order.
        after: the place after which the page begins; None: the first page.
        limit: the largest number of clients; None: all.
        offset: the number of clients to leave out.
    """
    order = replace(order, spellings=session.info.get(SEEN_SPELLINGS))
    if order.sort != "last-used" or order.only is not None or limit is None or offset:
        return _read(session, query, order, after, limit, offset)
    begins_unused = not order.descending if after is None else after.key is None
    parts = (_read_unused, _read_used) if begins_unused else (_read_used, _read_unused)
    found = parts[0](session, query, order, after, limit)
    is_last_part = begins_unused is order.descending
    if is_last_part or len(found) == limit:
        return found
    return [*found, *parts[1](session, query, order, None, limit - len(found))]


def _read(  # noqa: PLR0913, PLR0917 - those of a page
    session: Session,
    query: Select[Any],
    order: ClientOrder,
    after: Place | None,
    limit: int | None,
    offset: int = 0,
) -> Sequence[Place]:
    ordered = order.select(query).offset(offset).limit(limit)
    if after is not None:
        ordered = ordered.where(order.is_behind(after))
    return [order.place(*row) for row in session.execute(ordered)]


def _read_unused(
    session: Session, query: Select[Any], order: ClientOrder, after: Place | None, limit: int
) -> Sequence[Place]:
    """Return the places of clients that were never used."""
    used = (_has_secret(ClientSecret.last_used_at.is_not(None)), _has_use())
    by_id = ClientOrder("id", order.descending, id_column=order.id_column)
    return _read(session, query.where(*(~each for each in used)), by_id, after, limit)


def _read_used(
    session: Session, query: Select[Any], order: ClientOrder, after: Place | None, limit: int
) -> Sequence[Place]:
    """Return the places of clients that were used.

    A page is that of the uses next to its beginning, if these are of enough clients.
    """
    begin = order.used_before if order.descending else None
    if after is not None and after.key is not None:
        begin = datetime.fromisoformat(after.key)
    found: Sequence[Place] = ()
    for uses in (_USES_PER_CLIENT, 10 * _USES_PER_CLIENT, None):
        if uses == 10 * _USES_PER_CLIENT and not found:
            continue
        end = None if uses is None else _find_time(session, begin, uses * limit, order)
        window = Window(end, begin) if order.descending else Window(begin, end)
        found = _read(session, query, replace(order, window=window), after, limit)
        if end is None or len(found) == limit:
            break
    return found


def _find_time(
    session: Session, begin: datetime | None, number: int, order: ClientOrder
) -> datetime | None:
    """Return the time of the use that comes after so many others; None: there are fewer.

    Uses outside the limits of a caller count too: it is only a guess of how far to look.
    """
    secret, use = ClientSecret.__table__.c, ScopeUse.__table__.c
    of_secret = select(secret.last_used_at).where(secret.last_used_at.is_not(None))
    of_token = select(use.last_at).where(use.kind == "asked")
    times = []
    for query, at in ((of_secret, secret.last_used_at), (of_token, use.last_at)):
        if begin is not None:
            query = query.where(at <= begin if order.descending else at >= begin)  # noqa: PLW2901
        ordered = query.order_by(at.desc() if order.descending else at)
        times.append(session.scalar(ordered.offset(number).limit(1)))
    found = [each for each in times if each is not None]
    return (max if order.descending else min)(found, default=None)


def _has_secret(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return the condition that a client has a secret with a condition."""
    return exists().where(ClientSecret.client_id == Client.id, condition)


def _has_use(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return the condition that a client asked for a scope, with conditions of that use."""
    return exists().where(ScopeUse.client_id == Client.id, ScopeUse.kind == "asked", *conditions)
