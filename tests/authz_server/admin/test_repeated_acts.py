"""Stops, revocations and links for passkeys that are sent again with their key are not repeated."""

import pytest

from authz_server.admin.routes import ROUTES
from support.admin_site import require_problem


def _keyed(name: str) -> dict[str, str]:
    return {"Idempotency-Key": name}


def test_every_creation_can_be_repeated():
    """A new route that answers 201 takes a key."""
    made = [each for each in ROUTES if each.status == 201]
    assert {each.path for each in made if each.repeat is None} == set()


def test_a_repeated_stop_is_not_set_again(site):
    """Also not after it was lifted in between."""
    client = site.new_client()["id"]
    body = {"kind": "client", "subject": client, "reason": "leaked"}
    first = site.send("POST", "/stops", json=body, headers=_keyed(client))
    assert first.status_code == 201, first.text
    again = site.send("POST", "/stops", json=body, headers=_keyed(client))
    assert again.status_code == 200, again.text
    assert again.json == {**first.json, "diff": {}}
    require_problem(site.send("POST", "/stops", json=body), 409, "conflict")
    other = {**body, "reason": "another"}
    refused = site.send("POST", "/stops", json=other, headers=_keyed(client))
    require_problem(refused, 422, "idempotency-key-reused")
    stop = f"/stops/client/{client}"
    lifted = site.change("POST", f"{stop}/lift", {"reason": "over"}, item=stop)
    assert lifted.status_code == 200, lifted.text
    assert site.send("POST", "/stops", json=body, headers=_keyed(client)).status_code == 200
    require_problem(site.get(stop), 404, "not-found")


@pytest.mark.parametrize("kind", ["client", "scope", "all"])
def test_a_repeated_revocation_revokes_nothing_later(site, kind):
    """The tokens that were issued between the two requests stay as they are."""
    site.new_client(id=f"of-{kind}")
    body = {"client": f"of-{kind}"} if kind == "client" else {"scope": "mapper/link"}
    body = {"all": True} if kind == "all" else body
    first = site.send("POST", "/revocations", json=body, headers=_keyed(f"of {kind}"))
    assert first.status_code == 201, first.text
    site.forget_tokens()
    site.clock.advance(5)
    again = site.send("POST", "/revocations", json=body, headers=_keyed(f"of {kind}"))
    assert again.status_code == 200, again.text
    assert again.json == {**first.json, "diff": {}}
    records = site.get("/audit?action=cut_off.recorded&limit=500").json["items"]
    subject = first.json["subject"]
    assert [each["subject"] for each in records].count(f"{kind}:{subject}") == 1


@pytest.mark.parametrize("jti", ["9" * 64, '"\\' * 32])
def test_a_repeated_revocation_of_a_token_answers_the_same(site, jti):
    """It was changed by the first request."""
    for body in ({"token": site.new_token("clients:read")}, {"jti": jti}):
        headers = _keyed(f"{len(jti)} {jti[0]} {[*body]}")
        first = site.send("POST", "/revocations", json=body, headers=headers)
        assert first.status_code == 201, first.text
        again = site.send("POST", "/revocations", json=body, headers=headers)
        assert again.status_code == 200, again.text
        assert again.json == {**first.json, "diff": {}}
        assert again.json["changed"] is True


def test_a_repeated_link_is_not_shown_again(site):
    """The one that the first request showed still counts."""
    assert site.send("POST", "/operators", json={"name": "eve"}).status_code == 201
    path = "/operators/eve/enrolments"
    first = site.send("POST", path, json={}, headers=_keyed("link"))
    assert first.json["link"]
    again = site.send("POST", path, json={}, headers=_keyed("link"))
    assert again.status_code == 200, again.text
    assert "link" not in again.json
    assert again.json["expires_at"] == first.json["expires_at"]
    assert "Use another key" in again.json["enrolment_hint"]
    records = site.get("/audit?subject=eve&action=operator.enrolment_issued").json["items"]
    assert len(records) == 1
