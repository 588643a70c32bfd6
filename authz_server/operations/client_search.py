"""Find clients by their fields and by text, page by page, in the database."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, exists, func, literal, or_, select
from sqlalchemy.orm import Session, selectinload

from authz_server.assembly import Services
from authz_server.clients.models import CLIENT_GRANT, CLIENT_TEXT, Client, ClientSecret
from authz_server.operations.client_conditions import (
    contains_text,
    in_state,
    is_active,
    is_unused_since,
)
from authz_server.operations.client_orders import ClientOrder, ClientSort, Place, read_places
from authz_server.operations.client_views import ClientView, describe_client
from authz_server.operations.id_lists import find_few, is_in_range, is_one_of, is_sqlite
from authz_server.scopes.models import Scope
from authz_server.scopes.uses import ScopeUse
from authz_server.tokens.stops import find_stopped_clients

_TEXT, _GRANT = CLIENT_TEXT.c, CLIENT_GRANT.c
#: The largest number of ids in one query.
_CHUNK = 500
#: The largest number of clients with a scope that are found first, before the other conditions.
FEW = 1_000
#: The largest number that a list counts, unless it counts all: as many are found first.
COUNTED = FEW
#: The key of the ids of the clients that a limited caller sees, if they are few, in a session.
SEEN_CLIENTS = "seen_clients"
#: The execution option of a query whose rows are clients, with no rows of other clients in it: a
#: limited caller sees the same by simpler conditions.
LISTS_CLIENTS = "lists_clients"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFilters:
    """The clients to find; None or the empty text does not filter.

    Attributes:
        text: a part of the id, the name, the organisation or an allowed scope; the case of letters
            does not count.
        organisation: the whole organisation.
        authentication_method: the registered method.
        scope: the canonical name of an allowed scope.
        one_of_scopes: canonical names, of which one is an allowed scope.
        state: ``enabled``, ``disabled``, ``expired`` or ``not yet``.
        unused_since: the time since which it obtained no token; it is older than that.
        secret_ends_before: the time before which one of its active secrets ends.
        text_in_scopes: whether the text may be a part of a scope; False for callers that do not see
            all scopes.
    """

    text: str = ""
    organisation: str | None = None
    authentication_method: str | None = None
    scope: str | None = None
    one_of_scopes: tuple[str, ...] | None = None
    state: str | None = None
    unused_since: datetime | None = None
    secret_ends_before: datetime | None = None
    text_in_scopes: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundClient(ClientView):
    """A client of a list.

    Attributes:
        last_used_at: when it was last seen to obtain a token; None: never.
        secret_ends_at: when the first of its active secrets ends; None: none ends.
        stopped_by: the stop in force of the client itself or of a programme with it, such as
            ``programme cash``; None: there is none that the caller sees. A caller with limits sees
            no stops of programmes.
    """

    last_used_at: datetime | None
    secret_ends_at: datetime | None
    stopped_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundClients:
    """A part of a list of clients.

    Attributes:
        clients: the clients, in the order of the list.
        total: the number of clients in the whole list, or a lower bound.
        is_exact: True if the total is exact.
    """

    clients: tuple[FoundClient, ...]
    total: int
    is_exact: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPage:
    """A page of a list of clients.

    Attributes:
        clients: the clients, in the order of the list.
        places: their places in the order, by their ids.
        total: the number of clients in the whole list; None: they were not counted.
    """

    clients: tuple[FoundClient, ...]
    places: Mapping[str, Place]
    total: "Total | None" = None


def find_clients(  # noqa: PLR0913 - what, in which order, from where
    services: Services,
    filters: ClientFilters,
    *,
    sort: ClientSort = "id",
    descending: bool = False,
    offset: int = 0,
    limit: int | None = None,
) -> FoundClients:
    """Return clients with their last use, in an order, and their number.

    Without clients, all are counted; beside a part of the list, up to :data:`COUNTED`.

    Args:
        services: the parts of the server.
        filters: the clients to find.
        sort: the order; clients that were never used come first by ``last-used``.
        descending: whether the order is reversed.
        offset: the number of clients to leave out.
        limit: the largest number of clients; None: all.
    """
    now = services.corrected_clock()
    with services.database.reading() as session:
        wanted = _find_wanted(session, filters, sort, now)
        if limit == 0:
            return FoundClients(clients=(), total=_count(session, wanted).number)
        order = _order(ClientOrder(sort, descending), filters, wanted)
        places = read_places(session, wanted.query, order, None, limit, offset=offset)
        total = Total(offset + len(places))
        if len(places) == limit or (offset and not places):
            total = _count(session, wanted, max(total.number, COUNTED))
        ids = [each.client_id for each in places]
        clients = _describe_all(session, ids, now)
        return FoundClients(clients=clients, total=total.number, is_exact=total.is_exact)


class Total(NamedTuple):
    """The number of clients, exact or at least.

    Attributes:
        number: the number, or a lower bound.
        is_exact: True if it is exact.
    """

    number: int
    is_exact: bool = True


def sort_clients(  # noqa: PLR0913 - what, in which order, from where
    services: Services,
    filters: ClientFilters,
    order: ClientOrder,
    *,
    after: Place | None,
    limit: int,
    most: int | None = 0,
) -> ClientPage:
    """Return up to ``limit`` clients, in an order.

    Args:
        services: the parts of the server.
        filters: the clients to find.
        order: the order.
        after: the place after which the page begins; None: the first page.
        limit: the largest number of clients.
        most: the largest number of clients of the whole list that is counted; 0: none is counted;
            None: all are.
    """
    now = services.corrected_clock()
    with services.database.reading() as session:
        # An index has the ids in their order, and a text is read in that order.
        if order.sort == "id" and most == 0:
            wanted = _Wanted(_select_ids(session, filters, order.sort, now))
        else:
            wanted = _find_wanted(session, filters, order.sort, now)
        places = read_places(session, wanted.query, _order(order, filters, wanted), after, limit)
        total = None
        if most != 0:
            is_whole = after is None and len(places) < limit
            total = Total(len(places)) if is_whole else _count(session, wanted, most)
        ids = [each.client_id for each in places]
        return ClientPage(
            clients=_describe_all(session, ids, now),
            places=dict(zip(ids, places, strict=True)),
            total=total,
        )


def are_granted(
    session: Session, kind: str, names: Sequence[str], client_id: ColumnElement[Any]
) -> ColumnElement[bool]:
    """Return the condition that clients are granted one of the names.

    Args:
        session: a database session.
        kind: ``scope`` or ``resource_server``.
        names: the names.
        client_id: the id of a client, in the query of the condition.
    """
    of_names = and_(_GRANT.kind == kind, _GRANT.name.in_(names))
    found = find_few(session, select(_GRANT.client_id).where(of_names), FEW)
    if found is not None:
        return is_one_of(client_id, found, is_sqlite=is_sqlite(session))
    # Of many clients, a page has soon as many as it needs.
    granted = CLIENT_GRANT.alias()
    return exists().where(
        granted.c.client_id == client_id, granted.c.kind == kind, granted.c.name.in_(names)
    )


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The clients of a list.

    Attributes:
        query: the query of their ids.
        number: their number, if they are few; None: they are many, or were not counted.
        only: returns the condition that a column is the id of one of them, if they are few.
        above: a number that they are known to exceed.
    """

    query: Select[Any]
    number: int | None = None
    only: Callable[[Any], ColumnElement[bool]] | None = None
    above: int = 0


def _find_wanted(
    session: Session, filters: ClientFilters, sort: ClientSort, now: datetime
) -> _Wanted:
    """Return the clients that the filters select, by their ids if they are few.

    Of many clients, a page in the order of an index has soon as many as it needs. Few would be
    sought in the whole index.
    """
    query = _select_ids(session, filters, sort, now)
    if replace(filters, text_in_scopes=True) == ClientFilters():
        seen = session.info.get(SEEN_CLIENTS)
        return _Wanted(query) if seen is None else _Wanted(query, only=_is_one_of(session, seen))
    # A text is read in the order of its own narrow table, before the grants of each client.
    is_near = is_in_range(session, _TEXT.client_id, in_order=True)
    ordered = query.where(is_near).order_by(_TEXT.client_id) if filters.text else query
    few = find_few(session, ordered, FEW)
    if few is None:
        return _Wanted(query, above=FEW)
    only = _is_one_of(session, few)
    chosen = _from(Client.id).where(Client.kind == "client", only(Client.id))
    return _Wanted(chosen, len(few), only)


def _order(order: ClientOrder, filters: ClientFilters, wanted: _Wanted) -> ClientOrder:
    """Return an order with what is known of the clients, so that less is read."""
    is_joined = filters.text and wanted.number is None
    return replace(
        order,
        only=wanted.only,
        used_before=filters.unused_since,
        id_column=_TEXT.client_id if is_joined else Client.id.expression,
    )


def _is_one_of(session: Session, ids: Sequence[str]) -> Callable[[Any], ColumnElement[bool]]:
    return partial(is_one_of, ids=ids, is_sqlite=is_sqlite(session))


def _count(session: Session, wanted: _Wanted, most: int | None = None) -> Total:
    if wanted.number is not None:
        return Total(wanted.number)
    if most is not None and most <= wanted.above:
        return Total(most, is_exact=False)
    if most is None:
        counted = wanted.query.with_only_columns(func.count(), maintain_column_froms=True)
        return Total(session.scalar(counted) or 0)
    # The rows are counted here: the limits of a caller apply to the query of clients itself.
    each = wanted.query.with_only_columns(literal(1), maintain_column_froms=True)
    found = len(session.scalars(each.limit(most + 1)).all())
    return Total(min(found, most), is_exact=found <= most)


def _select_ids(
    session: Session, filters: ClientFilters, sort: ClientSort, now: datetime
) -> Select[Any]:
    """Return the query of the ids of clients."""
    query = _from(Client.id).where(is_in_range(session, Client.id, in_order=sort == "id"))
    if filters.text:
        query = query.join(CLIENT_TEXT, _TEXT.client_id == Client.id)
        query = query.where(is_in_range(session, _TEXT.client_id, in_order=sort == "id"))
    return query.where(Client.kind == "client", *_conditions(session, filters, now))


def _from(selected: Any) -> Select[Any]:  # noqa: ANN401 - any expression
    return select(selected).select_from(Client).execution_options(**{LISTS_CLIENTS: True})


def _conditions(
    session: Session, filters: ClientFilters, now: datetime
) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if filters.text:
        conditions.append(_has_text(session, filters))
    if filters.organisation is not None:
        conditions.append(Client.organisation == filters.organisation)
    if filters.authentication_method is not None:
        conditions.append(Client.authentication_method == filters.authentication_method)
    if filters.scope is not None:
        conditions.append(are_granted(session, "scope", [filters.scope], Client.id.expression))
    if filters.one_of_scopes is not None:
        names = filters.one_of_scopes
        conditions.append(are_granted(session, "scope", names, Client.id.expression))
    if filters.state is not None:
        conditions.append(in_state(filters.state, now))
    if filters.unused_since is not None:
        created: ColumnElement[Any] = Client.created_at.expression
        if filters.text and is_sqlite(session):
            # Without statistics, SQLite would begin with the index of this column, and sort.
            created = func.coalesce(created, Client.updated_at)
        conditions.append(created < filters.unused_since)
        conditions += is_unused_since(filters.unused_since)
    if filters.secret_ends_before is not None:
        ends = ClientSecret.expires_at.between(now, filters.secret_ends_before)
        due = select(ClientSecret.client_id).where(ends, is_active(now))
        conditions.append(Client.id.in_(due))
    return conditions


def _has_text(session: Session, filters: ClientFilters) -> ColumnElement[bool]:
    """Return the condition that a client has a text in one of its fields."""
    of_sqlite = is_sqlite(session)
    own = contains_text(_TEXT.text, filters.text, of_sqlite=of_sqlite)
    if not filters.text_in_scopes:
        return own
    in_name = contains_text(func.lower(Scope.name), filters.text, of_sqlite=of_sqlite)
    names = session.scalars(select(Scope.name).where(in_name)).all()
    return or_(own, are_granted(session, "scope", names, _TEXT.client_id)) if names else own


def _load(session: Session, ids: Sequence[str]) -> dict[str, Client]:
    found: dict[str, Client] = {}
    query = select(Client).options(selectinload(Client.secrets))
    for chunk in _chunks(ids):
        found |= {row.id: row for row in session.scalars(query.where(Client.id.in_(chunk)))}
    return found


def _last_uses(session: Session, ids: Sequence[str]) -> Mapping[str, datetime]:
    found: dict[str, datetime] = {}
    query = select(ScopeUse.client_id, func.max(ScopeUse.last_at)).group_by(ScopeUse.client_id)
    query = query.execution_options(**{LISTS_CLIENTS: True})
    for chunk in _chunks(ids):
        asked = query.where(ScopeUse.kind == "asked", ScopeUse.client_id.in_(chunk))
        found |= {client_id: at for client_id, at in session.execute(asked)}  # noqa: C416 - typed rows
    return found


def _chunks(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))


def _describe_all(session: Session, ids: Sequence[str], now: datetime) -> tuple[FoundClient, ...]:
    rows, used = _load(session, ids), _last_uses(session, ids)
    stopped = find_stopped_clients(session)
    return tuple(
        _describe(rows[each], used.get(each), stopped.get(each), now)
        for each in ids
        if each in rows
    )


def _describe(
    client: Client, used_at: datetime | None, stopped_by: str | None, now: datetime
) -> FoundClient:
    view = describe_client(client, now)
    uses = [used_at, *(each.last_used_at for each in client.secrets)]
    ends = [
        each.expires_at
        for each in client.secrets
        if (each.ended_at is None or each.ended_at > now) and each.expires_at is not None
    ]
    return FoundClient(
        **{field: getattr(view, field) for field in ClientView.__dataclass_fields__},
        last_used_at=max((each for each in uses if each is not None), default=None),
        secret_ends_at=min((each for each in ends if each > now), default=None),
        stopped_by=stopped_by,
    )
