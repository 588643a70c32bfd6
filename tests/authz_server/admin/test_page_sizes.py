"""How large an answer is that was given no limit."""

import pytest
from sqlalchemy import insert

from authz_server.audit.models import AuditRecord
from authz_server.clients.models import Client
from authz_server.operations.reports import NAMED_CLIENTS

NUMBER = 120
LARGEST = 60_000


@pytest.fixture(scope="module")
def large(site):
    """A site with clients and records of 2 kB each, and with a scope that no API owns."""
    scope = {"name": "unowned/read"}
    assert site.send("POST", "/scopes", json=scope).status_code == 201
    now = site.clock()
    lists = ("default_scopes", "allowed_resource_servers", "permissions")
    client = {
        "kind": "client",
        "enabled": True,
        "authentication_method": "client_secret_basic",
        "grant_types": ["client_credentials"],
        "allowed_scopes": ["unowned/read"],
        **{name: [] for name in lists},
        "properties": {"contacts": ["x" * 1_500]},
        "created_at": now,
        "updated_at": now,
    }
    with site.services.database.transaction() as session:
        session.execute(
            insert(Client),
            [
                {**client, "id": f"large-{each:03}", "name": f"{each}", "organisation": "Large"}
                for each in range(NUMBER)
            ],
        )
        record = {"at": now, "actor": "large", "action": "client.updated", "subject": "large"}
        detail = {"fields": ["name"], "was": "y" * 1_500}
        session.execute(insert(AuditRecord), [{**record, "detail": detail}] * NUMBER)
    return site


@pytest.mark.parametrize(
    "path", ["/clients?q=large", "/audit?actor=large", "/audit/search?actor=large"]
)
def test_a_page_without_a_limit_ends_where_it_would_be_large(large, path):
    """And the next one continues it, so that each item is on one page."""
    found, cursor, pages = [], "", 0
    while cursor is not None:
        answer = large.get(f"{path}&cursor={cursor}" if cursor else path)
        assert answer.status_code == 200, answer.text
        assert len(answer.data) < LARGEST
        assert answer.json["items"]
        found += answer.json["items"]
        cursor, pages = answer.json["next"], pages + 1
    assert len(found) == NUMBER
    if path.startswith("/clients"):
        assert [each["id"] for each in found] == [f"large-{each:03}" for each in range(NUMBER)]
    assert pages > 2
    asked = large.get(f"{path}&limit=110")
    assert len(asked.json["items"]) == 110


def test_an_item_that_is_large_itself_is_a_page(large):
    programme = {"name": "large", "clients": [f"large-{each:03}" for each in range(NUMBER)]}
    assert large.send("POST", "/programmes", json=programme).status_code == 200
    (one,) = large.get("/programmes").json["items"]
    assert len(one["clients"]) == NUMBER
    assert large.change("DELETE", "/programmes/large").status_code == 200


def test_the_report_of_owners_names_the_first_clients_of_a_scope(large):
    """More of them by its limit, and all of them in the list of clients."""
    first = [f"large-{each:03}" for each in range(NUMBER)]
    for query, number in (("", NAMED_CLIENTS), ("?limit=50", 50)):
        report = large.get(f"/reports/owners{query}").json["scopes_without_server"]
        assert report["unowned/read"] == first[:number]


def test_who_could_use_a_scope_is_answered_in_parts(large):
    """Each part continues the lists of the one before; the numbers are those of all."""
    path = "/audit/who?scope=unowned/read&at=2999-01-01T00:00:00Z"
    first = large.get(path)
    assert len(first.data) < LARGEST
    assert len(first.json["could"]) == 50
    found, cursor = [], ""
    while cursor is not None:
        part = large.get(f"{path}&limit=35" + (f"&cursor={cursor}" if cursor else "")).json
        assert (part["could_count"], part["unknown_count"], part["held_count"]) == (NUMBER, 0, 0)
        found += [each["client_id"] for each in part["could"]]
        cursor = part["next"]
    assert found == [f"large-{each:03}" for each in range(NUMBER)]
    whole = large.get(f"{path}&limit={NUMBER}").json
    assert (len(whole["could"]), whole["next"]) == (NUMBER, None)
    other = large.get(
        f"/audit/who?scope=mapper/link&at=2999-01-01T00:00:00Z&cursor={first.json['next']}"
    )
    assert other.status_code == 400
    assert large.get(f"{path}&limit=0").status_code == 400
