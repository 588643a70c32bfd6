"""Orders of lists of clients, and the places in them at which pages begin."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Select,
    Subquery,
    and_,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
)

from authz_server.clients.models import Client, ClientSecret
from authz_server.scopes.uses import ScopeUse

ClientSort = Literal["id", "name", "organisation", "created", "last-used"]


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
    """

    sort: ClientSort = "id"
    descending: bool = False

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
        query = query.outerjoin(self._latest, self._latest.c.client_id == Client.id)
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
        use = union_all(by_secret, by_token).subquery().c
        latest = select(use.client_id, func.max(use.at).label("at")).group_by(use.client_id)
        return latest.subquery()
