"""Clients that could use a scope in the past, by the stops that were in force then."""

from datetime import timedelta

import pytest
from sqlalchemy import insert, text

from authz_server.audit.models import AuditRecord
from authz_server.audit.time_limit import ReadingTooLongError, reading_at_most
from authz_server.operations.audit.grants import find_grants
from authz_server.operations.clients import create_client, delete_client
from authz_server.operations.programmes import define_programme, delete_programme
from authz_server.operations.resource_servers import create_resource_server
from authz_server.operations.scopes import assign_scopes
from authz_server.operations.stops import lift_stop, plan_stop, set_stop

SCOPES = ("mapper/link", "mapper/unlink")


@pytest.fixture
def desk(operator):
    """Two clients, of which each has one of the scopes."""
    for client, scope in zip(("linker", "unlinker"), SCOPES, strict=True):
        create_client(
            operator.services, actor=operator.actor, id=client, name="C", allowed_scopes=[scope]
        )
    return operator


def find_could(desk, at) -> list[str]:
    with desk.services.database.reading() as session:
        return [*find_grants(session, SCOPES, at).could]


def stop_for_a_while(desk, kind: str, subject: str):
    """Set a stop and lift it; return a time at which it was in force."""
    services, by = desk.services, {"actor": desk.actor}
    set_stop(services, plan_stop(services, kind, subject), reason="INC-1", **by)
    at = services.clock()
    lift_stop(services, kind, subject, reason="over", **by)
    return at


def test_a_reading_of_many_changes_ends_with_its_time(desk):
    """Also where no file of records is read: years of changes take longer than a request may."""
    long_ago = desk.services.clock() - timedelta(days=1)
    with reading_at_most(0), pytest.raises(ReadingTooLongError):
        find_could(desk, long_ago)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_changes_are_read_in_parts(desk):
    """The time ends a reading before all of them are read: the last one cannot be."""
    at = desk.services.clock()
    facts = {"at": at + timedelta(seconds=1), "actor": "a", "action": "client.updated"}
    with desk.services.transaction() as session:
        rows = [{**facts, "subject": f"c{number}", "detail": {}} for number in range(1_000)]
        session.execute(insert(AuditRecord), rows)
        session.execute(
            text("UPDATE audit_record SET actor = CAST(x'ff' AS TEXT) WHERE subject = 'c999'")
        )
    with desk.statements() as seen, reading_at_most(0), pytest.raises(ReadingTooLongError):
        find_could(desk, at)
    assert len(seen) == 1


@pytest.mark.parametrize("later", ["deleted", "changed", "emptied"])
def test_a_programme_that_was_stopped_had_the_members_of_then(desk, later):
    services, by = desk.services, {"actor": desk.actor}
    define_programme(services, "cash", scopes=["mapper/link"], clients=["unlinker"], **by)
    before = services.clock()
    at = stop_for_a_while(desk, "programme", "cash")
    if later == "deleted":
        delete_programme(services, "cash", **by)
    else:
        define_programme(services, "cash", scopes=[], clients=["unlinker"], **by)
    if later == "emptied":
        delete_client(services, "unlinker", kind="client", **by)
    assert find_could(desk, before) == ["linker", "unlinker"]
    assert find_could(desk, at) == []
    # A later stop of it says nothing about that time.
    if later == "changed":
        set_stop(services, plan_stop(services, "programme", "cash"), reason="INC-2", **by)
        assert find_could(desk, at) == []
        assert find_could(desk, services.clock()) == ["linker"]


@pytest.mark.parametrize("later", ["moved", "freed", "deleted"])
def test_a_resource_server_that_was_stopped_had_the_scopes_of_then(desk, later):
    services, by = desk.services, {"actor": desk.actor}
    for server, scopes in (("one", ["mapper/link"]), ("two", [])):
        create_resource_server(
            services, id=server, name="S", identifier=f"urn:t:{server}", scopes=scopes, **by
        )
    at = stop_for_a_while(desk, "resource-server", "one")
    assert find_could(desk, at) == ["unlinker"]
    if later == "deleted":
        delete_client(services, "one", kind="resource_server", **by)
    else:
        owner = "two" if later == "moved" else None
        assign_scopes(services, ["mapper/link"], owner, take_over=True, **by)
        assign_scopes(services, ["mapper/unlink"], "one", take_over=True, **by)
    assert find_could(desk, at) == ["unlinker"]
