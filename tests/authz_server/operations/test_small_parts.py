"""Lists for a caller that sees a small part of the clients, which comes last in the order."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, insert, text

from authz_server.clients.models import Client
from authz_server.operations import reach
from authz_server.operations.client_orders import ClientOrder
from authz_server.operations.client_search import ClientFilters, sort_clients
from authz_server.operations.limited_services import limit_services, reach_of
from authz_server.operations.permissions import Limits
from authz_server.operations.resource_servers import create_resource_server
from support.rows_read import rows_read

NOW = datetime.now(UTC)
CLIENTS = 4_000
#: Every fortieth.
LAST = range(0, CLIENTS, 40)


@pytest.fixture(scope="module")
def uneven(shared_operator):
    """An operator with many clients; those of one API and organisation are the last ones."""
    services = shared_operator.services
    for name, owned in (("mapper", "mapper/*"), ("disburse", "disburse/*")):
        server = {"name": name, "identifier": f"urn:t:{name}", "scopes": [owned]}
        create_resource_server(services, actor=shared_operator.actor, id=name, **server)
    with services.transaction() as session:
        session.execute(insert(Client), [_client(number) for number in range(CLIENTS)])
    with services.transaction() as session:
        session.execute(text("ANALYZE"))
    return shared_operator


def _client(number: int) -> dict:
    lists = ("default_scopes", "allowed_resource_servers", "permissions")
    is_last = number in LAST
    return {
        "id": f"client-{number:04}",
        "kind": "client",
        "name": "Zone" if is_last else "Office",
        "organisation": "Zone" if is_last else "Office",
        "enabled": True,
        "authentication_method": "client_secret_basic",
        "grant_types": ["client_credentials"],
        "allowed_scopes": ["disburse/disburse" if is_last else "mapper/link"],
        **{name: [] for name in lists},
        "created_at": NOW if is_last else NOW - timedelta(days=1),
        "updated_at": NOW,
    }


@pytest.mark.parametrize("sort", ["id", "name", "organisation", "created"])
@pytest.mark.parametrize(
    "limits",
    [
        Limits(resource_servers=frozenset({"disburse"})),
        Limits(organisations=frozenset({"Zone"})),
    ],
    ids=["server", "organisation"],
)
def test_the_other_clients_are_not_passed_one_by_one(uneven, monkeypatch, limits, sort):
    """They are more than are remembered, and are found before they are sorted."""
    monkeypatch.setattr(reach, "_FEW_CLIENTS", 50)
    services = limit_services(uneven.services, limits, only_reads=True)
    assert reach_of(services).is_sparse
    engine, seen = uneven.services.database.engine, []

    def note(_connection, _cursor, statement, parameters, *_):
        seen.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        order = ClientOrder(sort)
        found = sort_clients(services, ClientFilters(), order, after=None, limit=20)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert [each.id for each in found.clients] == [f"client-{each:04}" for each in LAST[:20]]
    listing = [each for each in seen if "ORDER BY" in each[0] and "LIMIT" in each[0]]
    assert len(listing) == 1
    # SQLite may pass the others in the order, by a few steps for each and without their grants.
    assert rows_read(engine, *listing[0]) < CLIENTS * (
        1.5 if engine.dialect.name == "sqlite" else 0.25
    )


def test_a_large_part_is_read_in_the_order_of_the_list(uneven, monkeypatch):
    """It fills a page soon."""
    monkeypatch.setattr(reach, "_FEW_CLIENTS", 50)
    limits = Limits(resource_servers=frozenset({"mapper"}))
    assert not reach_of(limit_services(uneven.services, limits, only_reads=True)).is_sparse
