"""Clients in another order and their number, rings in one report, and all tokens at once."""

import pytest

from authz_server.admin.resources import clients
from authz_server.operations import client_search
from support.admin_site import require_problem


def test_clients_are_sorted_page_by_page_and_counted(site):
    for name, client in (("Gamma", "sort-1"), ("alpha", "sort-2"), ("Beta", "sort-3")):
        site.new_client(name, id=client, organisation="Sorted")
    for query, expected in (
        ("sort=name", ["sort-2", "sort-3", "sort-1"]),
        ("sort=name&descending=true", ["sort-1", "sort-3", "sort-2"]),
        ("sort=id&descending=true", ["sort-3", "sort-2", "sort-1"]),
        ("sort=created", ["sort-1", "sort-2", "sort-3"]),
    ):
        filters = f"organisation=Sorted&limit=2&total=true&{query}"
        first = site.get(f"/clients?{filters}").json
        second = site.get(f"/clients?{filters}&cursor={first['next']}").json
        found = [each["id"] for page in (first, second) for each in page["items"]]
        assert found == expected
        assert (first["total"], second["total"], second["next"]) == (3, 3, None)
        # The cursor belongs to its order.
        other = f"/clients?organisation=Sorted&limit=2&total=true&cursor={first['next']}"
        require_problem(site.get(other), 400, "invalid-cursor")
    assert "total" not in site.get("/clients").json
    require_problem(site.get("/clients?sort=secret"), 400, "invalid-request")


def test_a_total_is_exact_up_to_a_number_unless_all_are_counted(site, monkeypatch):
    """A cursor continues the list with another total, or with none."""
    for number in range(3):
        site.new_client(id=f"counted-{number}", organisation="Counted")
    path = "/clients?organisation=Counted&limit=2"
    monkeypatch.setattr(clients, "COUNTED", 2)
    # Few are found by their ids, and their number is known.
    monkeypatch.setattr(client_search, "FEW", 2)
    for total, expected in (("true", (2, False)), ("exact", (3, True))):
        page = site.get(f"{path}&total={total}").json
        assert (page["total"], page["total_is_exact"]) == expected
    page = site.get(path).json
    assert page.keys().isdisjoint({"total", "total_is_exact"})
    last = site.get(f"{path}&total=exact&cursor={page['next']}").json
    assert [each["id"] for each in last["items"]] == ["counted-2"]
    assert (last["total"], last["total_is_exact"]) == (3, True)
    whole = site.get("/clients?organisation=Counted&total=true").json
    assert (whole["total"], whole["total_is_exact"]) == (3, True)
    for total in ("1", "True", "TRUE"):
        assert site.get(f"{path}&descending={total}&total={total}").json["total"] == 2
    for total in ("0", "False", "FALSE"):
        assert "total" not in site.get(f"{path}&descending={total}&total={total}").json
    require_problem(site.get(f"{path}&total=most"), 400, "invalid-request")


def test_rings_are_reported_together(site):
    report = site.get("/reports/keys").json
    assert report["issuer"] == site.settings.issuer
    (ring,) = report["rings"]
    assert ring["status"]["ring"] == "es256"
    assert [row["key"]["kid"] for row in ring["calendar"]["rows"]]
    assert site.get("/reports/keys?ring=es256").json["rings"][0]["status"]["ring"] == "es256"
    require_problem(site.get("/reports/keys?ring=unknown"), 404, "not-found")


def test_all_tokens_are_revoked_until_now(site):
    token = site.new_token("clients:read")
    planned = site.send("POST", "/revocations?dry_run=true", json={"all": True})
    assert (planned.status_code, planned.json["kind"]) == (200, "all")
    for further in ({"client": "caller"}, {"before": "2020-01-01T00:00:00Z"}, {"jti": "a"}):
        answer = site.send("POST", "/revocations", json={"all": True, **further})
        require_problem(answer, 422, "invalid-value")
    assert site.get("/clients", token=token).status_code == 200
    done = site.send("POST", "/revocations", json={"all": True})
    assert (done.status_code, done.json["subject"]) == (201, "")
    require_problem(site.get("/clients", token=token), 401, "invalid-token")
    site.forget_tokens()
    site.clock.advance(1)
    one = site.send("POST", "/revocations", json={"jti": "0123456789"}, token=site.new_token())
    assert (one.json["client_id"], one.json["changed"]) == ("", True)
    assert one.json["expires_at"]


@pytest.mark.parametrize("sort", ["name", "organisation"])
def test_the_longest_names_have_a_next_page(site, sort):
    """A cursor holds the name by which its page ends."""
    long = "\U0001f600" * 200
    for number in range(2):
        site.new_client(long, id=f"{sort}-{number}-".ljust(100, "x"), organisation=long)
    path = f"/clients?sort={sort}&descending=true&limit=1"
    first = site.get(path)
    second = site.get(f"{path}&cursor={first.json['next']}")
    assert second.status_code == 200, second.text
    assert [each["name"] for page in (first, second) for each in page.json["items"]] == [long, long]
