"""Reports of many clients: what the database is asked for, and what is found."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, insert

from authz_server.clients.models import Client, ClientSecret
from authz_server.operations import least_privilege
from authz_server.operations.client_search import ClientFilters, find_clients
from authz_server.operations.due_secrets import list_due_secrets
from authz_server.operations.least_privilege import (
    ReportPlace,
    report_least_privilege,
    report_part,
)
from authz_server.operations.limited_services import limit_services
from authz_server.operations.permissions import Limits
from authz_server.operations.resource_servers import create_resource_server
from authz_server.scopes.uses import ScopeUse

NOW = datetime.now(UTC).replace(microsecond=0)
AGO = {days: NOW - timedelta(days=days) for days in (1, 100, 200, 300)}


def add_clients(operator, first, number):
    """Add dormant clients; every other one has a secret that ends soon and was used once."""
    lists = ("default_scopes", "allowed_resource_servers", "permissions")
    clients = [
        {
            "id": f"old-{each:05}",
            "kind": "client",
            "name": f"Old {each}",
            "organisation": "Office",
            "enabled": True,
            "authentication_method": "client_secret_basic",
            "grant_types": ["client_credentials"],
            "allowed_scopes": ["mapper/link", *(["disburse/disburse"] if each % 2 else [])],
            **{name: [] for name in lists},
            "created_at": AGO[300],
            "updated_at": AGO[300],
        }
        for each in range(first, first + number)
    ]
    secrets = [
        {
            "id": f"s-{each['id']}",
            "client_id": each["id"],
            "record": "x",
            "description": "",
            "created_at": AGO[300],
            "expires_at": NOW + timedelta(days=7),
            "last_used_at": AGO[200],
        }
        for each in clients[::2]
    ]
    uses = [
        {
            "client_id": each["id"],
            "scope": "mapper/link",
            "kind": "asked",
            "first_at": AGO[300],
            "last_at": AGO[100],
        }
        for each in clients[::4]
    ]
    with operator.services.transaction() as session:
        session.execute(insert(Client), clients)
        session.execute(insert(ClientSecret), secrets)
        session.execute(insert(ScopeUse), uses)


def statements_of(operator, act):
    """Return what an act finds, and its statements."""
    seen = []

    def note(_connection, _cursor, statement, *_):
        seen.append(statement)

    engine = operator.services.database.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        return act(), seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


@pytest.fixture
def few(operator):
    """An operator with 8 dormant clients of an API; some have a scope of another one."""
    server = {"name": "Mapper", "identifier": "urn:t:mapper", "scopes": ["mapper/*"]}
    create_resource_server(operator.services, actor=operator.actor, id="mapper", **server)
    add_clients(operator, 0, 8)
    return operator


def test_dormant_clients_have_their_last_use(few):
    """That of a secret or of a token, whichever is later; a limited caller sees its own alone."""
    found = {
        each.client_id: (each.scopes, each.last_used_at)
        for each in report_least_privilege(few.services).dormant_clients
    }
    assert list(found) == [f"old-{each:05}" for each in range(8)]
    of_each = [(1, AGO[100]), (2, None), (1, AGO[200]), (2, None)]
    assert list(found.values()) == of_each * 2
    limits = Limits(resource_servers=frozenset({"mapper"}))
    limited = limit_services(few.services, limits, only_reads=True)
    found = [
        (each.scopes, each.last_used_at) for each in report_least_privilege(limited).dormant_clients
    ]
    assert found == [(1, AGO[100]), (1, None), (1, AGO[200]), (1, None)] * 2


def test_a_caller_of_an_organisation_sees_the_last_use_of_all_its_clients(few):
    """Also of one that administers more than it does, as in the list of clients."""
    with few.services.transaction() as session:
        row = session.get(Client, "old-00000")
        row.allowed_scopes = [*row.allowed_scopes, "clients:read"]
    limits = Limits(organisations=frozenset({"Office"}))
    limited = limit_services(few.services, limits, only_reads=True)
    for services in (few.services, limited):
        found = report_least_privilege(services).dormant_clients[0]
        listed = find_clients(services, ClientFilters(), limit=1).clients[0]
        assert (found.client_id, found.scopes) == ("old-00000", 2)
        assert found.last_used_at == listed.last_used_at == AGO[100]


def test_a_report_of_many_clients_asks_no_more_often_than_of_few(few):
    """Clients are not loaded in parts: the rows of 100,000 would take most of its time."""

    def report():
        return report_least_privilege(few.services)

    _, of_few = statements_of(few, report)
    add_clients(few, 8, 1_200)
    found, of_many = statements_of(few, report)
    assert len(found.dormant_clients) == 1_208
    assert of_many == of_few


def test_due_secrets_are_read_without_the_lists_of_their_clients(few):
    """Nor are further columns of a client or secret read one by one."""
    within = timedelta(days=9)
    found, statements = statements_of(
        few, lambda: list_due_secrets(few.services, kind="client", within=within)
    )
    assert [each.id for each in found] == [f"old-{each:05}" for each in range(0, 8, 2)]
    assert not any("allowed_scopes" in each or "record" in each for each in statements)
    # Beside the fingerprints of the peppers.
    reading = [each for each in statements if "client_secret" in each and "min(" not in each]
    assert len(reading) == 2


def _parts(services, limit):
    """Return the lists of the report, from its parts."""
    unused, dormant, due, after = [], [], [], ReportPlace()
    while after is not None:
        part, after = report_part(services, days=90, after=after, limit=limit)
        for whole, more in (
            (unused, part.unused_scopes),
            (dormant, part.dormant_clients),
            (due, part.secrets_due),
        ):
            assert len(more) <= limit
            whole.extend(more)
    return unused, dormant, due


def test_parts_of_the_report_continue_one_another(few, monkeypatch):
    """Each list by itself, also where it ends before the others."""
    monkeypatch.setattr(least_privilege, "_CHUNK", 2)
    old = {"record": "x", "description": "", "created_at": NOW - timedelta(days=400)}
    with few.services.transaction() as session:
        rows = [{"id": f"o{each}", "client_id": f"old-{each:05}", **old} for each in range(5)]
        session.execute(insert(ClientSecret), rows)
    limits = Limits(resource_servers=frozenset({"mapper"}))
    limited = limit_services(few.services, limits, only_reads=True)
    for services, due in ((few.services, 9), (limited, 7)):
        whole = report_least_privilege(services)
        assert (len(whole.unused_scopes), len(whole.secrets_due)) == (8, due)
        # Those that end come first.
        ends = [each.expires_at is None for each in whole.secrets_due]
        assert ends == sorted(ends)
        for limit in (1, 2, 3, 7, 8, 9, 20):
            lists = (whole.unused_scopes, whole.dormant_clients, whole.secrets_due)
            assert _parts(services, limit) == tuple(map(list, lists)), limit


def test_a_part_of_the_report_reads_a_part_of_the_clients(few):
    """As many as it lists, and the uses of these."""
    add_clients(few, 8, 1_200)
    _, statements = statements_of(few, lambda: report_part(few.services, days=90, limit=20))
    reading = [each for each in statements if re.search(r"FROM (client|scope_use)\b", each)]
    assert len(reading) > 4
    assert all("LIMIT" in each or "client_id IN" in each or "ANY" in each for each in reading)
