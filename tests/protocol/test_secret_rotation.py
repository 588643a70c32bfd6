"""Rotation of secrets with an overlap that ends itself, their last source, and warnings."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest

from authz_server.clients.models import ClientSecret
from authz_server.errors import ConflictError, InvalidChangeError
from support.parties import ACTOR, Credentials
from support.protocol import ENDPOINTS, METHODS, Protocol, present

pytestmark = pytest.mark.usefixtures("alone")

HOME, OFFICE = "198.51.100.7", "2001:db8::7"
DAY = timedelta(days=1)


@pytest.fixture(params=METHODS)
def client(request, protocol: Protocol) -> Credentials:
    """A client with one secret, of either method."""
    return protocol.new_client(request.param)


def rotate(protocol: Protocol, client: Credentials, **ends) -> Credentials:
    """Rotate the client's secrets; return the credentials with the new one."""
    with protocol.parties.change() as (services, session):
        _, secret, _ = services.clients.rotate_secret(session, client.id, actor=ACTOR, **ends)
    protocol.parties.watch.note_basic(client.id, secret)
    return Credentials(client.id, secret, client.method)


def status(protocol: Protocol, client: Credentials, address: str = HOME) -> int:
    """Use a secret, at each endpoint; return the status of all."""
    statuses = set()
    for endpoint in ENDPOINTS:
        fields, headers = present(client.method, client.id, client.secret)
        form = protocol.form(endpoint) | fields
        base = {"REMOTE_ADDR": address}
        statuses.add(protocol.post(endpoint, form, headers, environ_base=base).status_code)
    (found,) = statuses
    return found


def stored(protocol: Protocol, client: Credentials) -> list[ClientSecret]:
    """Return the client's secrets as the database has them, the oldest first."""
    with protocol.services.database.reading() as session:
        rows = session.query(ClientSecret).filter_by(client_id=client.id)
        return sorted(rows, key=lambda row: row.created_at)


def do_duties(protocol: Protocol) -> None:
    """Do the background work of a process for secrets, and read what it changed."""
    protocol.services.maintenance.flush_last_used()
    protocol.services.secret_duties.end_unused_secrets()
    protocol.services.feed.poll()


def pass_time(protocol: Protocol, seconds: float) -> None:
    protocol.clock.advance(seconds)
    do_duties(protocol)


def test_the_overlap_ends_when_the_old_secret_is_unused(protocol: Protocol, client: Credentials):
    """Each use begins the time again; the new secret stays. Cases A12, T286."""
    protocol.clock.advance(1)
    new = rotate(protocol, client, end_old_when_unused=timedelta(hours=2))
    for _ in range(3):
        pass_time(protocol, 7_000)
        assert (status(protocol, client), status(protocol, new)) == (200, 200)
    do_duties(protocol)
    pass_time(protocol, 7_199)
    assert stored(protocol, client)[0].ended_at is None
    pass_time(protocol, 1)
    assert (status(protocol, client), status(protocol, new)) == (401, 200)
    assert stored(protocol, client)[0].ended_at == protocol.clock()
    assert '"actor":"server","action":"client.secret_ended"' in protocol.audit_trail()


def test_the_time_begins_with_the_rotation_at_the_earliest(protocol: Protocol, client: Credentials):
    """A secret that was never used before the rotation is not ended at once. Case T286."""
    protocol.clock.advance(30 * 86_400)
    new = rotate(protocol, client, end_old_when_unused=timedelta(hours=1))
    pass_time(protocol, 3_599)
    assert status(protocol, client) == 200
    pass_time(protocol, 3_600)
    assert (status(protocol, client), status(protocol, new)) == (401, 200)


def test_the_overlap_ends_at_a_date(protocol: Protocol, client: Credentials):
    """At that instant, on every node, without a job. Cases A12, T286."""
    new = rotate(protocol, client, end_old_at=protocol.clock() + timedelta(seconds=100))
    protocol.clock.advance(99)
    assert (status(protocol, client), status(protocol, new)) == (200, 200)
    protocol.clock.advance(1)
    assert (status(protocol, client), status(protocol, new)) == (401, 200)


def test_the_last_working_secret_is_never_ended_for_want_of_use(
    protocol: Protocol, client: Credentials
):
    """The new one was ended meanwhile. Case T286."""
    protocol.clock.advance(1)
    rotate(protocol, client, end_old_when_unused=timedelta(hours=1))
    new = stored(protocol, client)[1]
    with protocol.parties.change() as (services, session):
        services.clients.end_secret(session, client.id, new.id, actor=ACTOR)
    pass_time(protocol, 10 * 86_400)
    assert status(protocol, client) == 200


def test_an_end_that_is_planned_already_is_not_moved_back(protocol: Protocol, client: Credentials):
    """Case T286."""
    protocol.clock.advance(1)
    sooner = protocol.clock() + timedelta(seconds=50)
    first = stored(protocol, client)[0]
    with protocol.parties.change() as (services, session):
        services.clients.end_secret(session, client.id, first.id, actor=ACTOR, at=sooner)
    rotate(protocol, client, end_old_at=protocol.clock() + timedelta(days=9))
    assert stored(protocol, client)[0].expires_at == sooner


@pytest.mark.parametrize(
    "ends",
    [
        {},
        {"end_old_when_unused": timedelta(minutes=59)},
        {"end_old_when_unused": timedelta(days=367)},
        {"end_old_at": datetime(2040, 1, 1)},  # noqa: DTZ001 - a time without a zone is refused
    ],
)
def test_a_rotation_that_cannot_be_made_changes_nothing(protocol: Protocol, ends: dict):
    """Case T286."""
    client = protocol.new_client()
    with pytest.raises(InvalidChangeError):
        rotate(protocol, client, **ends)
    assert len(stored(protocol, client)) == 1


def test_a_client_with_all_its_secrets_cannot_be_rotated(protocol: Protocol):
    """Case T286."""
    client = protocol.new_client()
    for _ in range(9):
        protocol.parties.add_secret(client.id)
    with pytest.raises(ConflictError, match="10 working secrets"):
        rotate(protocol, client, end_old_at=protocol.clock() + DAY)
    assert all(row.expires_at is None for row in stored(protocol, client))


def test_the_last_use_is_kept_with_its_source(protocol: Protocol, client: Credentials):
    """Written by the background job; a wrong secret is no use. Case T286."""
    assert status(protocol, client, HOME) == 200
    protocol.clock.advance(5)
    assert status(protocol, client, OFFICE) == 200
    wrong = Credentials(client.id, "w" * 43, client.method)
    protocol.clock.advance(5)
    assert status(protocol, wrong, "192.0.2.1") == 401
    assert stored(protocol, client)[0].last_used_from is None
    do_duties(protocol)
    (row,) = stored(protocol, client)
    assert row.last_used_from == OFFICE
    assert row.last_used_at == protocol.clock() - timedelta(seconds=5)


# ------------------------------------------------------------------------------------- warnings


@pytest.fixture
def due(protocol: Protocol, client: Credentials) -> Iterator[Credentials]:
    """A client whose only secret ends in 20 days; no other test sees it."""
    protocol.clock.advance(1)
    row = stored(protocol, client)[0]
    with protocol.parties.change() as (services, session):
        at = protocol.clock() + 20 * DAY
        services.clients.end_secret(session, client.id, row.id, actor=ACTOR, at=at)
    yield client
    with protocol.parties.change() as (services, session):
        services.clients.set_enabled(session, client.id, actor=ACTOR, enabled=False)


def announced(protocol: Protocol, client: Credentials) -> int:
    """Return how often the end of a secret of the client was announced in the audit log."""
    lines = protocol.audit_trail().splitlines()
    return sum('"secret.due"' in line and f'"client_id":"{client.id}"' in line for line in lines)


def test_a_secret_that_ends_soon_is_announced_once_a_day_over_all_nodes(
    protocol: Protocol, due: Credentials, caplog
):
    """Case T286."""
    duties = protocol.services.secret_duties
    with ThreadPoolExecutor(4) as nodes:
        list(nodes.map(lambda _: duties.announce_due_secrets(), range(4)))
    assert announced(protocol, due) == 1
    assert f"of {due.id} ends in 20 days" in caplog.text
    protocol.clock.advance(86_399)
    duties.announce_due_secrets()
    assert announced(protocol, due) == 1
    protocol.clock.advance(1)
    duties.announce_due_secrets()
    assert announced(protocol, due) == 2
    assert '"days_left":19' in protocol.audit_trail()


def test_a_replaced_secret_is_not_announced_unless_it_is_still_used(
    protocol: Protocol, due: Credentials
):
    """Case T286."""
    duties = protocol.services.secret_duties
    protocol.clock.advance(1)
    protocol.parties.add_secret(due.id, due.method)
    duties.announce_due_secrets()
    assert announced(protocol, due) == 0
    protocol.clock.advance(1)
    assert status(protocol, due) == 200
    protocol.services.maintenance.flush_last_used()
    duties.announce_due_secrets()
    assert announced(protocol, due) == 1


def test_secrets_that_end_later_or_have_ended_are_not_announced(
    protocol: Protocol, due: Credentials
):
    """Case T286."""
    duties = protocol.services.secret_duties
    protocol.clock.advance(-11 * 86_400)
    duties.announce_due_secrets()
    assert announced(protocol, due) == 0
    protocol.clock.advance(31 * 86_400)
    duties.announce_due_secrets()
    assert announced(protocol, due) == 0
