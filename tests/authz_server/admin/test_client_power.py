"""Every field of a client that widens what it may do is under an act: generated from the fields."""

from contextlib import ExitStack

import pytest

from authz_server.admin.resources.clients import ClientChanges
from authz_server.clients.properties import PROPERTY_NAMES
from authz_server.operations.client_power import UNDER_OTHER_ACTS, WIDER, WITHOUT_POWER
from support.admin_site import running_admin_site
from support.databases import copied_database

_WINDOW = {"from": "08:00", "to": "17:00", "time_zone": "Africa/Nairobi"}
_BUDGET = {"per": "hour", "tokens": 10}
_GRANT = {
    "programmes": ["cash-2026"],
    "currency_code": "KES",
    "payer_fas": ["account:1@bank"],
    "payment_cap": "10.00",
    "batch_cap": "10.00",
    "count": 1,
}
#: For each field, a value, and one that permits more.
VALUES = {
    "grant_types": (
        ["client_credentials"],
        ["client_credentials", "urn:ietf:params:oauth:grant-type:token-exchange"],
    ),
    "allowed_resource_servers": (["mapper"], []),
    "permissions": ([], ["introspect:any"]),
    "token_lifetime_seconds": (300, 600),
    "starts_at": ("2030-01-02T00:00:00Z", "2030-01-01T00:00:00Z"),
    "expires_at": ("2040-01-01T00:00:00Z", None),
    "allowed_networks": (["192.0.2.0/25"], ["192.0.2.0/24"]),
    "payment_windows": ([_WINDOW], [_WINDOW, {**_WINDOW, "days": ["sun"]}]),
    "token_budget": ([_BUDGET], [{**_BUDGET, "tokens": 11}]),
    "sender_id": (None, "ministry"),
    "dpop_bound_access_tokens": (True, False),
    "tls_client_certificate_bound_access_tokens": (True, False),
    "authorization_details_types": ([], None),
    "authorization_details_grants": (
        {"g2p_disbursement": [_GRANT]},
        {"g2p_disbursement": [_GRANT, {**_GRANT, "batch_cap": "20.00"}]},
    ),
    "authorization_details_required": (True, False),
    "token_exchange": ({"subjects": ["a"]}, {"subjects": ["a", "b"]}),
    "may_act": ({"sub": "other"}, None),
    "admin_resource_servers": (["mapper"], []),
    "admin_organisations": (["Ministry"], ["Ministry", "Treasury"]),
}


@pytest.fixture(scope="module")
def site(request, tmp_path_factory):
    """A site where the acts that the registration of a client is, need a second person."""
    directory = tmp_path_factory.mktemp("power")
    acts = ["client.widen_limits", "client.first_credential", "scope.grant"]
    with ExitStack() as running:
        url = running.enter_context(copied_database(request, "sqlite", directory))
        overrides = {"approvals": {"acts": acts}}
        site = running.enter_context(running_admin_site(directory, url, overrides))
        body = {"id": "mapper", "name": "M", "identifier": "https://mapper.example"}
        assert site.send("POST", "/resource-servers", json=body).status_code == 201
        yield site


def _create(site, **fields):
    """Register a client without waiting."""
    body = {"name": "A client", "allowed_scopes": [], **fields}
    answer = site.send("POST", "/clients?break_glass=true&reason=test", json=body)
    assert answer.status_code == 201, answer.text
    return f"/clients/{answer.json['id']}"


def _fields(name: str, value: object) -> dict:
    return {name: value} if name not in PROPERTY_NAMES else {"properties": {name: value}}


def test_every_field_of_a_client_is_placed():
    """A new field fails here until it is under an act, or said to permit nothing."""
    fields = {*ClientChanges.__struct_fields__, *PROPERTY_NAMES} - {"properties"}
    placed = [*WIDER, *UNDER_OTHER_ACTS, *WITHOUT_POWER]
    assert sorted(placed) == sorted(fields)
    assert VALUES.keys() == WIDER.keys()


@pytest.mark.parametrize("name", WIDER)
def test_a_value_that_permits_more_waits_and_one_that_permits_less_does_not(site, name):
    """Each field by itself, over the API."""
    less, more = VALUES[name]
    path = _create(site, **_fields(name, less))
    before = site.get(path).json
    answer = site.change("PATCH", path, _fields(name, more))
    assert answer.status_code == 202, answer.text
    assert answer.json["acts"] == ["client.widen_limits"]
    assert site.get(path).json == before
    done = site.change("PATCH", f"{path}?break_glass=true&reason=x", _fields(name, more), item=path)
    assert done.status_code == 200, done.text
    back = site.change("PATCH", path, _fields(name, less))
    assert back.status_code == 200, back.text
    assert "approval" not in back.json


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("token_budget", [_BUDGET], None),
        ("token_budget", [_BUDGET], [{"per": "day", "tokens": 1}]),
        ("payment_windows", [_WINDOW], None),
        ("allowed_networks", ["192.0.2.0/24"], ["2001:db8::/32"]),
        ("allowed_networks", ["192.0.2.0/24"], None),
        ("token_lifetime_seconds", 300, None),
        ("token_lifetime_seconds", None, 1_800),
        ("starts_at", "2030-01-01T00:00:00Z", None),
        ("expires_at", "2030-01-01T00:00:00Z", "2031-01-01T00:00:00Z"),
        ("token_exchange", None, {"subjects": ["*"]}),
        ("token_exchange", {"subjects": ["*"]}, {"subjects": ["*"], "impersonation": True}),
        ("token_exchange", {"subjects": ["*"]}, {"subjects": ["*"], "issuers": {"x": ["a"]}}),
        ("admin_organisations", ["Ministry"], None),
        ("may_act", {"sub": "one"}, {"sub": "other"}),
    ],
)
def test_further_ways_to_permit_more_wait(site, name, old, new):
    """A limit that is taken off, exchanged, or extended."""
    path = _create(site, **(_fields(name, old) if old is not None else {}))
    assert site.change("PATCH", path, _fields(name, new)).status_code == 202


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("token_budget", [_BUDGET], [{**_BUDGET, "tokens": 9}, {"per": "day", "tokens": 1}]),
        ("allowed_networks", ["192.0.2.0/24"], ["192.0.2.128/25", "192.0.2.7"]),
        ("token_exchange", {"subjects": ["*"]}, {"subjects": ["a"]}),
        ("token_lifetime_seconds", None, 600),
        ("expires_at", None, "2030-01-01T00:00:00Z"),
        ("name", "A client", "Another"),
        ("organisation", "", "Treasury"),
    ],
)
def test_a_narrower_limit_does_not_wait(site, name, old, new):
    """So that a leak is closed at once."""
    path = _create(site, **(_fields(name, old) if old is not None else {}))
    answer = site.change("PATCH", path, _fields(name, new))
    assert answer.status_code == 200, answer.text


def test_to_enable_a_client_waits_and_to_disable_it_does_not(site):
    """A second person sees why it was disabled."""
    path = _create(site)
    assert site.change("POST", f"{path}/disable", {}, item=path).status_code == 200
    answer = site.change("POST", f"{path}/enable", {}, item=path)
    assert answer.status_code == 202, answer.text
    assert answer.json["acts"] == ["client.widen_limits"]
    assert site.get(path).json["state"] == "disabled"


@pytest.mark.parametrize(
    ("body", "acts"),
    [
        ({}, ["client.first_credential"]),
        ({"with_secret": False}, None),
        (
            {
                "authentication_method": "private_key_jwt",
                "properties": {"jwks_uri": "https://client.example/jwks.json"},
            },
            ["client.first_credential"],
        ),
        ({"with_secret": False, "allowed_scopes": ["mapper/link"]}, ["scope.grant"]),
        (
            {"with_secret": False, "properties": {"token_exchange": {"subjects": ["*"]}}},
            ["client.widen_limits"],
        ),
    ],
    ids=str,
)
def test_a_registration_is_under_the_acts_of_what_it_gives(site, body, acts):
    """Its first secret or key, its scopes, and what goes beyond a client without fields."""
    answer = site.send("POST", "/clients", json={"name": "New", "allowed_scopes": [], **body})
    if acts is None:
        assert answer.status_code == 201, answer.text
    else:
        assert answer.status_code == 202, answer.text
        assert answer.json["acts"] == acts


def test_the_first_secret_of_a_client_waits(site):
    """It works once another person has approved it."""
    path = _create(site, with_secret=False)
    answer = site.send("POST", f"{path}/secrets", json={})
    assert answer.status_code == 202, answer.text
    assert answer.json["acts"] == ["client.first_credential"]
    assert answer.json["answer"]["value"]
    assert site.get(f"{path}/secrets").json["items"] == []


def test_a_token_for_registrations_is_under_the_acts_of_what_it_gives(site):
    """Each client gets a secret by it; the value is shown to its requester once."""
    exchange = ["client_credentials", "urn:ietf:params:oauth:grant-type:token-exchange"]
    for fields, acts in (
        ({}, ["client.first_credential"]),
        ({"scopes": ["mapper/link"]}, ["scope.grant", "client.first_credential"]),
        ({"grant_types": exchange}, ["client.widen_limits", "client.first_credential"]),
    ):
        body = {"expires_at": "2040-01-01T00:00:00Z", **fields}
        planned = site.send("POST", "/registration-tokens?dry_run=true", json=body)
        assert planned.json["approval"]["acts"] == acts
        answer = site.send("POST", "/registration-tokens", json=body)
        assert answer.status_code == 202, answer.text
        assert answer.json["acts"] == acts
        assert answer.json["answer"]["value"]
    assert site.get("/registration-tokens").json["items"] == []
