"""Lists of many clients for a caller with limits: what the database does for each statement."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, insert, text

from authz_server.clients.models import Client, ClientSecret
from authz_server.operations.client_orders import ClientOrder
from authz_server.operations.client_search import (
    FEW,
    ClientFilters,
    find_clients,
    search_clients,
    sort_clients,
)
from authz_server.operations.limited_services import limit_services
from authz_server.operations.permissions import Limits
from authz_server.operations.resource_servers import create_resource_server

CLIENTS = 3 * FEW
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


LISTS = {
    "a page": lambda services: search_clients(services, ClientFilters(), after=None, limit=101),
    "the dormant ones": lambda services: search_clients(
        services, ClientFilters(unused_since=DAYS_AGO), after=None, limit=101
    ),
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
        if each[0].startswith(("SELECT client.id \n", "SELECT client.id, lower", "SELECT count("))
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
        word = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
        with engine.connect() as connection:
            lines = connection.exec_driver_sql(f"{word} {listing[0]}", listing[1]).all()
        plan = "\n".join(str(line) for line in lines)
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
