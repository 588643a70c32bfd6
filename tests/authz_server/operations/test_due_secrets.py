"""The secrets that end soon, page by page."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, insert, text

from authz_server.clients.models import Client, ClientSecret
from authz_server.operations.due_secrets import list_due_secrets, list_some_due, place_of
from authz_server.operations.limited_services import limit_services
from authz_server.operations.permissions import Limits
from authz_server.operations.resource_servers import create_resource_server

NOW = datetime.now(UTC).replace(microsecond=0)
WITHIN = timedelta(days=9)
CLIENTS = 3_000
#: The clients of another API.
OTHERS = 40


@pytest.fixture(scope="module")
def due(shared_operator):
    """An operator with many secrets: a tenth ends soon, and some are of another pepper."""
    services = shared_operator.services
    for name in ("mapper", "disburse"):
        server = {"name": name, "identifier": f"urn:t:{name}", "scopes": [f"{name}/*"]}
        create_resource_server(services, actor=shared_operator.actor, id=name, **server)
    with services.transaction() as session:
        session.execute(insert(Client), [_client(number) for number in range(CLIENTS)])
        session.execute(
            insert(ClientSecret),
            [each for number in range(CLIENTS) for each in _secrets(number, services)],
        )
    with services.transaction() as session:
        session.execute(text("ANALYZE"))
    return shared_operator


def _client(number: int) -> dict:
    lists = ("default_scopes", "allowed_resource_servers", "permissions")
    return {
        "id": f"client-{number:04}",
        "kind": "client",
        "name": f"Client {number}",
        "organisation": f"Office {number % 10}",
        "enabled": number % 50 != 10,
        "authentication_method": "client_secret_basic",
        "grant_types": ["client_credentials"],
        "allowed_scopes": ["mapper/link" if number < CLIENTS - OTHERS else "disburse/disburse"],
        **{name: [] for name in lists},
        "created_at": NOW - timedelta(days=300),
        "updated_at": NOW - timedelta(days=300),
        "expires_at": NOW - timedelta(days=1) if number % 50 == 20 else None,
    }


def _secrets(number: int, services) -> list[dict]:
    """Return a secret of each client, of every tenth one that ends soon, and an ended one."""
    soon = NOW + timedelta(days=1 + number % 7) if number % 10 == 0 else None
    shared = {
        "client_id": f"client-{number:04}",
        "record": "x",
        "description": "",
        "created_at": NOW - timedelta(days=300),
        "last_used_at": NOW - timedelta(days=1) if number % 20 else None,
        "ended_at": None,
    }
    other = number % 500 == 5
    own = services.secrets.fingerprint if number % 3 else None
    secrets = [
        {
            **shared,
            "id": f"s{number:04}",
            "expires_at": soon,
            "pepper_fingerprint": "0123456789abcdef" if other else own,
        }
    ]
    ended = {**shared, "expires_at": NOW + timedelta(days=1), "ended_at": NOW - timedelta(days=2)}
    # It replaces the first one where that was not used since.
    later = {**shared, "expires_at": NOW + timedelta(days=90), "created_at": NOW}
    if number % 10 == 0:
        secrets += [
            {**ended, "id": f"e{number:04}", "pepper_fingerprint": own},
            {**later, "id": f"l{number:04}", "pepper_fingerprint": own},
        ]
    return secrets


def _expected() -> list[tuple[str, bool]]:
    """Return the ids of the secrets in their order, and whether each is of another pepper."""
    numbers = [each for each in range(CLIENTS) if each % 50 not in {10, 20}]
    others = [each for each in numbers if each % 500 == 5]
    soon = sorted((each for each in numbers if each % 10 == 0), key=lambda each: (each % 7, each))
    return [(f"s{each:04}", True) for each in others] + [(f"s{each:04}", False) for each in soon]


def _pages(services, limit: int) -> list:
    found, after = [], None
    while page := list_some_due(services, kind="client", within=WITHIN, after=after, limit=limit):
        found += page
        after = place_of(page[-1])
    return found


def test_pages_continue_one_another(due):
    """Also where a page ends among the secrets of another pepper, or among equal ends."""
    whole = list_due_secrets(due.services, kind="client", within=WITHIN)
    assert [(each.secret_id, each.other_pepper) for each in whole] == _expected()
    for limit in (1, 4, 6, 7, 100):
        assert tuple(_pages(due.services, limit)) == whole, limit
    soon = [each for each in whole if not each.other_pepper]
    assert all(each.replaced for each in soon)
    assert all(each.days_left == each.ends_at.toordinal() - NOW.toordinal() - 1 for each in soon)
    assert list_due_secrets(due.services, kind="resource_server", within=WITHIN) == ()


@pytest.mark.parametrize(
    "limits",
    [
        Limits(resource_servers=frozenset({"disburse"})),
        Limits(organisations=frozenset({"Office 0", "Office 5"})),
    ],
)
def test_a_limited_caller_pages_through_its_own(due, limits):
    """Those of others are left out, and a page is full all the same."""
    limited = limit_services(due.services, limits, only_reads=True)
    whole = list_due_secrets(limited, kind="client", within=WITHIN)
    first = f"s{CLIENTS - OTHERS:04}" if limits.resource_servers else ""
    assert [each.secret_id for each in whole] == [each for each, _ in _expected() if each >= first]
    for limit in (1, 3, 50):
        assert tuple(_pages(limited, limit)) == whole, limit


def test_a_page_reads_an_index(due):
    """Not the secrets of all clients, and no list of a client."""
    engine, seen = due.services.database.engine, []

    def note(_connection, _cursor, statement, parameters, *_):
        seen.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        list_some_due(due.services, kind="client", within=WITHIN, limit=20)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    listing = [each for each in seen if "LIMIT" in each[0]]
    assert len(listing) == 2
    assert not any("allowed_scopes" in statement for statement, _ in seen)
    word = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    indexes = ("ix_client_secret_pepper_fingerprint_client_id", "ix_client_secret_expires_at")
    for (statement, parameters), index in zip(listing, indexes, strict=True):
        with engine.connect() as connection:
            lines = connection.exec_driver_sql(f"{word} {statement}", parameters).all()
        plan = "\n".join(map(str, lines))
        assert index in plan, plan
        assert "SCAN client" not in plan, plan
        assert "Seq Scan on client_secret" not in plan, plan
