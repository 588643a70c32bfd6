"""The extent of a stop of what many clients have: their number, and some of their names."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import insert

from authz_server.audit.models import AuditRecord
from authz_server.clients.models import Client
from authz_server.operations.limited_services import limit_services
from authz_server.operations.permissions import Limits
from authz_server.operations.programmes import define_programme
from authz_server.operations.resource_servers import create_resource_server
from authz_server.operations.stops import NAMED_CLIENTS, plan_stop, set_stop

CLIENTS = NAMED_CLIENTS + 100


@pytest.fixture
def many(operator):
    """An operator with many clients of one scope; every other one has a second scope as well."""
    server = {"name": "Mapper", "identifier": "urn:t:mapper", "scopes": ["mapper/*"]}
    create_resource_server(operator.services, actor=operator.actor, id="mapper", **server)
    with operator.services.transaction() as session:
        session.execute(insert(Client), [_client(number) for number in range(CLIENTS)])
    return operator


def _client(number: int) -> dict:
    lists = ("default_scopes", "allowed_resource_servers", "permissions")
    now = datetime.now(UTC)
    return {
        "id": f"client-{number:04}",
        "kind": "client",
        "name": f"Client {number}",
        "organisation": f"Office {number % 10}",
        "enabled": True,
        "authentication_method": "client_secret_basic",
        "grant_types": ["client_credentials"],
        "allowed_scopes": ["mapper/link", *(["mapper/unlink"] if number % 2 else [])],
        **{name: [] for name in lists},
        "created_at": now,
        "updated_at": now,
    }


def test_each_client_is_counted_once_and_some_are_named(many):
    """Of one scope, of several, and of a programme with clients of its own."""
    named = [f"client-{number:04}" for number in range(NAMED_CLIENTS)]
    of_scope = plan_stop(many.services, "scope", "mapper/link")
    assert (of_scope.client_count, list(of_scope.clients)) == (CLIENTS, named)
    of_server = plan_stop(many.services, "resource-server", "mapper")
    assert of_server.client_count == CLIENTS
    assert len(set(of_server.clients)) == NAMED_CLIENTS
    own = {"scopes": ["mapper/unlink"], "clients": ["client-0000", "client-0001", "client-0599"]}
    define_programme(many.services, "cash", **own, actor=many.actor)
    of_programme = plan_stop(many.services, "programme", "cash")
    # One of the three does not have the scope.
    assert of_programme.client_count == len(of_programme.clients) == CLIENTS // 2 + 1
    assert set(own["clients"]) <= set(of_programme.clients)
    alone = plan_stop(many.services, "client", "client-0007")
    assert (alone.client_count, alone.clients) == (1, ("client-0007",))


def test_a_limited_caller_gets_the_number_of_the_clients_that_it_sees(many):
    limits = {
        CLIENTS: Limits(resource_servers=frozenset({"mapper"})),
        CLIENTS // 10: Limits(organisations=frozenset({"Office 3"})),
        CLIENTS // 5: Limits(
            resource_servers=frozenset({"mapper"}),
            organisations=frozenset({"Office 3", "Office 4"}),
        ),
    }
    for number, each in limits.items():
        limited = limit_services(many.services, each)
        for kind, subject in (("scope", "mapper/link"), ("resource-server", "mapper")):
            planned = plan_stop(limited, kind, subject)
            assert planned.client_count == number, (each, kind)
            assert len(planned.clients) == min(number, NAMED_CLIENTS)


def test_the_number_of_all_is_recorded(many):
    planned = plan_stop(many.services, "scope", "mapper/link")
    set_stop(many.services, planned, reason="INC-1", actor=many.actor)
    with many.services.database.reading() as session:
        record = session.query(AuditRecord).filter_by(action="stop.set").one()
    assert record.detail["clients"] == CLIENTS


def test_the_ids_of_all_clients_are_not_read(many):
    """A statement counts them: those of 100,000 clients take seconds to read and to answer."""
    with many.statements() as seen:
        plan_stop(many.services, "scope", "mapper/link")
    reading = [each for each in seen if "client_grant" in each]
    assert len(reading) == 2
    assert all("count(" in each or "LIMIT" in each for each in reading)
