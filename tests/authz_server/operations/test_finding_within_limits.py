"""Lists of many clients for a caller with limits: what the database does for each statement."""

import re
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import get_args

import pytest
from sqlalchemy import delete, event, insert, select, text

from authz_server.clients.models import Client, ClientSecret
from authz_server.operations import client_search
from authz_server.operations.client_orders import ClientOrder, ClientSort
from authz_server.operations.client_search import (
    FEW,
    ClientFilters,
    Total,
    find_clients,
    sort_clients,
)
from authz_server.operations.limited_services import limit_services, reach_of
from authz_server.operations.permissions import Limits
from authz_server.operations.resource_servers import create_resource_server
from authz_server.scopes.models import Scope
from authz_server.scopes.uses import ScopeUse

CLIENTS = 4 * FEW
OF_SERVER = Limits(resource_servers=frozenset({"mapper"}))
OF_OFFICE = Limits(organisations=frozenset({"Office 0"}))
#: A client of that office, whose secret was used.
USED = "client-000010"
DAYS_AGO = datetime.now(UTC) - timedelta(days=90)


@pytest.fixture(scope="module")
def crowded(shared_operator):
    """An operator with many clients of one API, a tenth of which are of one organisation."""
    services = shared_operator.services
    server = {"name": "Mapper", "identifier": "urn:t:mapper", "scopes": ["mapper/*"]}
    create_resource_server(services, actor=shared_operator.actor, id="mapper", **server)
    with services.transaction() as session:
        session.execute(insert(Client), [_client(number) for number in range(CLIENTS)])
        secret = {"id": "used", "client_id": USED, "record": "x", "description": ""}
        now = datetime.now(UTC)
        session.execute(insert(ClientSecret), [{**secret, "created_at": now, "last_used_at": now}])
    with services.transaction() as session:
        session.execute(text("ANALYZE"))
    return shared_operator


@pytest.fixture
def used(crowded):
    """The operator, with two uses of each client: the last one was used first and a day ago."""
    now = datetime.now(UTC)
    with crowded.services.transaction() as session:
        rows = [
            {
                "client_id": f"client-{number:06}",
                "scope": scope,
                "kind": "asked",
                "first_at": now,
                "last_at": now - timedelta(days=1 + days, minutes=number),
            }
            for number in range(CLIENTS)
            for days, scope in enumerate(("mapper/link", "disburse/disburse"))
        ]
        session.execute(insert(ScopeUse), rows)
    with crowded.services.transaction() as session:
        session.execute(text("ANALYZE"))
    yield crowded
    with crowded.services.transaction() as session:
        session.execute(delete(ScopeUse))
        session.execute(text("ANALYZE"))


def _client(number: int) -> dict:
    lists = ("default_scopes", "allowed_resource_servers", "permissions")
    return {
        "id": f"client-{number:06}",
        "kind": "client",
        "name": f"Client {number}",
        "organisation": f"Office {number % 10}",
        "enabled": True,
        "authentication_method": "client_secret_basic",
        "grant_types": ["client_credentials"],
        "allowed_scopes": ["mapper/link", "disburse/disburse"],
        **{name: [] for name in lists},
        "created_at": DAYS_AGO - timedelta(days=1),
        "updated_at": DAYS_AGO,
    }


def statements_of(operator, limits, act):
    """Return what a limited caller gets, the statements for it, and their parameters."""
    services = limit_services(operator.services, limits, only_reads=True)
    seen = []

    def note(_connection, _cursor, statement, parameters, *_):
        seen.append((statement, parameters))

    engine = operator.services.database.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        return act(services), seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def by_id(services, **filters):
    """Return the first page by id."""
    page = sort_clients(services, ClientFilters(**filters), ClientOrder(), after=None, limit=101)
    return page.clients


LISTS = {
    "a page": by_id,
    "the dormant ones": partial(by_id, unused_since=DAYS_AGO),
    "by name": lambda services: (
        find_clients(services, ClientFilters(text="client"), sort="name", limit=101).clients
    ),
    "by last use": lambda services: (
        find_clients(services, ClientFilters(), sort="last-used", limit=101).clients
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_grants_are_joined_and_not_read_for_each_client(crowded, name):
    """PostgreSQL joins what limits a list: a condition with OR would be a plan for each row."""
    found, statements = statements_of(crowded, OF_SERVER, LISTS[name])
    assert len(found) == 101
    engine = crowded.services.database.engine
    listing = [
        each
        for each in statements
        if each[0].startswith(
            ("SELECT client.id \n", "SELECT client.id, lower", "SELECT ? AS", "SELECT %(param_1)s")
        )
    ]
    assert listing
    if engine.dialect.name == "sqlite":
        return
    for statement, parameters in listing:
        with engine.connect() as connection:
            lines = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars().all()
        plan = "\n".join(lines)
        assert "SubPlan" not in plan, plan
        assert "Semi Join" in plan, plan


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("limits", [Limits(), OF_SERVER])
@pytest.mark.parametrize("sort", ["id", "name", "organisation", "created"])
def test_a_sorted_page_reads_an_index_and_sorts_nothing(crowded, sort, limits, descending):
    """The first page, and one amid clients with the same key."""
    order = ClientOrder(sort, descending)
    engine = crowded.services.database.engine
    after = None
    for number in range(3):

        def page(services, place=after):
            return sort_clients(services, ClientFilters(), order, after=place, limit=101)

        found, statements = statements_of(crowded, limits, page)
        after = found.places[found.clients[-1].id]
        (listing,) = (each for each in statements if "ORDER BY" in each[0] and "LIMIT" in each[0])
        plan = plan_of(crowded, *listing)
        index = {
            "id": ("pk_client", "sqlite_autoindex_client"),
            "name": ("ix_client_lower_name",),
            "organisation": ("ix_client_lower_organisation",),
            "created": ("ix_client_created_at",),
        }[sort]
        assert any(each in plan for each in index), plan
        if number and engine.dialect.name == "sqlite":
            assert "SEARCH client USING" in plan, plan
        assert "TEMP B-TREE" not in plan, plan
        assert "Sort Key: " not in plan, plan
        assert "Seq Scan on client " not in plan, plan


def test_few_clients_are_one_parameter(crowded):
    """The driver reads each parameter of a statement: hundreds take longer than the query."""
    for name, act in LISTS.items():
        found, statements = statements_of(crowded, OF_OFFICE, act)
        assert len(found) == 101, name
        assert {each.organisation for each in found} == {"Office 0"}
        if crowded.services.database.engine.dialect.name == "postgresql":
            for statement, parameters in statements:
                # The clients of a page are loaded by their ids.
                assert len(parameters) < CLIENTS // 20, (name, statement)


def test_the_last_use_of_a_shared_client_orders_nothing(crowded):
    """A secret that is not shown to the caller has no part in the order of its list."""

    def last_used(services):
        found = find_clients(services, ClientFilters(), sort="last-used", descending=True, limit=1)
        return [each.id for each in found.clients]

    assert last_used(crowded.services) == [USED]
    for limits, first in ((OF_OFFICE, USED), (OF_SERVER, f"client-{CLIENTS - 1:06}")):
        found, _ = statements_of(crowded, limits, last_used)
        assert found == [first]


def plan_of(operator, statement, parameters):
    """Return the plan of a statement, a line for each step."""
    engine = operator.services.database.engine
    word = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    with engine.connect() as connection:
        lines = connection.exec_driver_sql(f"{word} {statement}", parameters).all()
    return "\n".join(str(line) for line in lines)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("limits", [Limits(), OF_SERVER])
def test_a_deep_page_by_last_use_reads_the_uses_next_to_it(used, limits, descending):
    """The uses of all clients are not read: an index has those of a window of time."""
    order = ClientOrder("last-used", descending)
    services = limit_services(used.services, limits, only_reads=True)
    with services.database.reading() as session:
        listed = session.execute(order.select(select(Client.id).where(Client.kind == "client")))
        places = [order.place(*row) for row in listed if row[0].startswith("client-")]
    middle = len(places) // 2

    def page(services):
        return sort_clients(services, ClientFilters(), order, after=places[middle], limit=3)

    found, statements = statements_of(used, limits, page)
    assert [each.id for each in found.clients] == [
        place.client_id for place in places[middle + 1 : middle + 4]
    ]
    reading = [each for each in statements if "scope_use" in each[0] and "ORDER BY" in each[0]]
    assert len(reading) == 2
    for statement, parameters in reading:
        plan = plan_of(used, statement, parameters)
        assert re.search(r"ix_scope_use_(scope_)?last_at", plan), plan
        assert "Seq Scan on scope_use" not in plan, plan
        assert "SCAN scope_use\n" not in plan, plan


@pytest.mark.parametrize("limits", [Limits(), OF_SERVER])
def test_unused_clients_by_their_last_use_begin_at_the_time_of_the_filter(used, limits):
    """The uses since then are not read first: none of these clients has one of them."""
    filters = ClientFilters(unused_since=datetime.now(UTC) - timedelta(days=2))
    order = ClientOrder("last-used", descending=True)

    def page(services):
        return sort_clients(services, filters, order, after=None, limit=3)

    found, statements = statements_of(used, limits, page)
    assert [each.id for each in found.clients] == [f"client-{1440 + n:06}" for n in range(3)]
    assert sum("UNION ALL" in each for each, _ in statements) == 1


@pytest.mark.parametrize("limits", [Limits(), OF_SERVER])
def test_a_text_of_unused_clients_is_read_in_its_order(used, limits):
    """SQLite sorts no clients by the time of their registration for it."""
    acts = (
        partial(by_id, text="client", unused_since=datetime.now(UTC)),
        lambda services: find_clients(
            services, ClientFilters(text="client", unused_since=datetime.now(UTC)), limit=9
        ),
    )
    for act in acts:
        _, statements = statements_of(used, limits, act)
        listing = [each for each in statements if "client_text" in each[0]]
        assert listing
        for statement, parameters in listing:
            plan = plan_of(used, statement, parameters)
            assert "TEMP B-TREE" not in plan, plan


def test_many_clients_are_counted_without_a_further_query(crowded):
    """More than are found first exceed what a list counts."""

    def page(services, most):
        filters = ClientFilters(state="enabled")
        return sort_clients(services, filters, ClientOrder(), after=None, limit=9, most=most).total

    counted, statements = statements_of(crowded, Limits(), partial(page, most=FEW))
    assert counted == Total(FEW, is_exact=False)
    whole, further = statements_of(crowded, Limits(), partial(page, most=None))
    assert whole.number >= CLIENTS
    assert len(further) == len(statements) + 1


def test_clients_with_several_grants_are_few(crowded):
    """Their ids are known before a list is read, however many scopes each of them has."""
    services = crowded.services
    scopes = [f"few/{number}" for number in range(9)]
    server = {"name": "Few", "identifier": "urn:t:few", "scopes": []}
    create_resource_server(services, actor=crowded.actor, id="few", **server)
    with services.transaction() as session:
        owned = {"resource_server_id": "few", "description": "", "risk": "read"}
        session.add_all(Scope(name=name, **owned) for name in scopes)
        rows = [{**_client(number), "id": f"few-{number}"} for number in range(FEW)]
        session.execute(insert(Client), [{**row, "allowed_scopes": scopes} for row in rows])
    limits = Limits(resource_servers=frozenset({"few"}))
    try:
        found, _ = statements_of(crowded, limits, LISTS["a page"])
        assert len(found) == 101
        reach = reach_of(limit_services(services, limits, only_reads=True))
        assert len(reach.seen_clients) == FEW
        assert reach_of(limit_services(services, OF_SERVER, only_reads=True)).seen_clients is None
    finally:
        with services.transaction() as session:
            session.execute(delete(Client).where(Client.id.startswith("few-")))
            session.execute(delete(Scope).where(Scope.name.in_(scopes)))


@pytest.mark.parametrize("limits", [Limits(), OF_SERVER, OF_OFFICE])
def test_no_more_clients_are_counted_than_asked_for(crowded, limits):
    """A total of many clients reads a part of them, and is not said to be exact."""
    for filters in (ClientFilters(), ClientFilters(text="client"), ClientFilters(state="enabled")):

        def count(services, most, filters=filters):
            order = ClientOrder()
            return sort_clients(services, filters, order, after=None, limit=1, most=most).total

        whole, _ = statements_of(crowded, limits, partial(find_clients, filters=filters))
        exact, _ = statements_of(crowded, limits, partial(count, most=None))
        assert exact == Total(len(whole.clients))
        assert exact.number >= CLIENTS // 10
        for most in (exact.number, exact.number + 1):
            assert statements_of(crowded, limits, partial(count, most=most))[0] == exact
        few, statements = statements_of(crowded, limits, partial(count, most=exact.number - 1))
        if few.is_exact:
            # They are few, and were found by their ids.
            assert limits == OF_OFFICE
            assert few == exact
        else:
            assert few == Total(exact.number - 1, is_exact=False)
            # Each row is selected as a constant.
            counting = [
                each for each, _ in statements if each.startswith(("SELECT ?", "SELECT %("))
            ]
            assert counting
            assert all("LIMIT" in each for each in counting)


def test_the_pages_of_find_clients_are_those_of_the_list(used, monkeypatch):
    """Whatever the page, the clients are those of the whole list, and nothing is left out."""
    monkeypatch.setattr(client_search, "COUNTED", 2 * CLIENTS)
    for sort in get_args(ClientSort):
        for descending in (False, True):
            order = {"sort": sort, "descending": descending}
            whole = find_clients(used.services, ClientFilters(), **order)
            ids = [each.id for each in whole.clients]
            assert (whole.total, whole.is_exact) == (len(ids), True)
            for offset in (0, 7, len(ids) - 2, len(ids) + 1):
                page = find_clients(used.services, ClientFilters(), offset=offset, limit=5, **order)
                assert [each.id for each in page.clients] == ids[offset : offset + 5]
                assert (page.total, page.is_exact) == (len(ids), True)
    counted = find_clients(used.services, ClientFilters(), limit=0)
    assert (counted.clients, counted.total) == ((), len(ids))


@pytest.mark.parametrize("sort", get_args(ClientSort))
def test_clients_before_those_of_a_caller_are_passed_without_their_grants(crowded, sort):
    """A caller whose clients come last in an order: their range is known before a list is read."""
    services = crowded.services
    server = {"name": "Late", "identifier": "urn:t:late", "scopes": []}
    create_resource_server(services, actor=crowded.actor, id="late", **server)
    number = FEW * 3 + 1
    with services.transaction() as session:
        owned = {"resource_server_id": "late", "description": "", "risk": "read"}
        session.add(Scope(name="late/read", **owned))
        rows = [{**_client(each), "id": f"late-{each:06}"} for each in range(number)]
        session.execute(insert(Client), [{**row, "allowed_scopes": ["late/read"]} for row in rows])
        session.execute(text("ANALYZE"))
    limits = Limits(resource_servers=frozenset({"late"}))

    def page(services):
        order = ClientOrder(sort)
        return sort_clients(services, ClientFilters(), order, after=None, limit=9, most=FEW)

    try:
        reach = reach_of(limit_services(services, limits, only_reads=True))
        assert reach.client_range == ("late-000000", f"late-{number - 1:06}")
        found, statements = statements_of(crowded, limits, page)
        assert sum(each.id.startswith("late-") for each in found.clients) == 9
        assert found.total == Total(FEW, is_exact=False)
        listing = [
            (statement, parameters)
            for statement, parameters in statements
            if statement.startswith("SELECT client.id") and "LIMIT" in statement
        ]
        assert listing
        for statement, parameters in listing:
            assert "BETWEEN" in statement
            if sort == "id":
                plan = plan_of(crowded, statement, parameters)
                assert re.search(r"\(id>\? AND id<\?\)|Index Cond: .*id\)::text >= ", plan), plan
    finally:
        with services.transaction() as session:
            session.execute(delete(Client).where(Client.id.startswith("late")))
            session.execute(delete(Scope).where(Scope.name == "late/read"))
            session.execute(text("ANALYZE"))
