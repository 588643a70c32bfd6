"""The daily work of each desk: keys and limits of clients, registration, events, reviews."""

import json
import re
from datetime import timedelta
from secrets import token_hex
from urllib.parse import quote

import pytest
from sqlalchemy import update

from authz_server.clients.models import Client
from authz_server.operations.permissions import ROLES, Limits
from support.assertions import jwks_of, new_key
from support.console_site import CSRF

_VALUE = re.compile(r'id="value"[^>]*value="([^"]+)"')


@pytest.fixture
def client(console) -> str:
    """A new client with a secret."""
    return console.site.new_client(authentication_method="client_secret_post")["id"]


@pytest.fixture
def api(console) -> str:
    """A new API."""
    body = {"id": f"api-{token_hex(4)}", "name": "X", "identifier": f"urn:test:{token_hex(8)}"}
    return console.site.send("POST", "/resource-servers", json=body).json["id"]


def _plan(console, act: str, **fields: str):
    """Ask for the plan of an act by its form."""
    return console.post(f"/act/{act}", {"csrf_token": CSRF, "plan": "yes", **fields})


def _item(console, path: str) -> dict:
    return console.site.get(path).json


@pytest.mark.parametrize(("noun", "path"), [("client", "/clients"), ("api", "/resource-servers")])
def test_public_keys_are_registered_and_replaced(console, request, noun, path):
    """Of a client and of an API: shown as they are stored; a private key is refused."""
    name = request.getfixturevalue(noun)
    key = new_key()
    keys = jwks_of(key)
    public, private = keys["keys"][0], key.as_dict(private=True)
    act = f"{noun}-keys"
    form = {"id": name, "authentication_method": "private_key_jwt", "jwks_uri": ""}
    planned = _plan(console, act, **form, jwks=f" {json.dumps(keys)}\n")
    assert planned.status_code == 200
    assert console.send_form(planned.text).status_code == 303
    stored = _item(console, f"{path}/{name}")
    assert stored["authentication_method"] == "private_key_jwt"
    assert stored["properties"]["jwks"]["keys"][0]["x"] == public["x"]
    shown = console.page(f"/act/{noun}-keys?id={name}")
    assert public["x"] in shown
    assert '<option value="private_key_jwt" selected>' in shown
    for odd in ("{", "[]", json.dumps({"keys": [private]}), "x" * 900):
        refused = _plan(console, act, **form, jwks=odd)
        assert refused.status_code == 422, odd
        assert _in_no_address(refused.text, "jwks=")
    assert _item(console, f"{path}/{name}") == stored
    moved = f"/act/{noun}-keys?id={name}&jwks=&jwks_uri={quote('https://keys.example/jwks')}"
    assert console.confirm(moved).status_code == 303
    assert _item(console, f"{path}/{name}")["properties"] == {
        "jwks_uri": "https://keys.example/jwks"
    }


def _in_no_address(page: str, text: str) -> bool:
    return not any(text in each for each in re.findall(r'(?:href|action)="([^"]*)"', page))


@pytest.mark.parametrize("act", ["client-keys", "api-keys", "client-create", "api-create"])
def test_keys_are_entered_in_a_form_that_has_no_address(console, client, api, act):
    """They would exceed it; a private one would stay in the history and in logs of proxies."""
    name = {"client-keys": client, "api-keys": api}.get(act, "")
    form = console.page(f"/act/{act}?id={name}")
    assert f'<form action="/act/{act}" method="post">' in form
    keys = jwks_of(*(new_key() for _ in range(20)), alg="ES256", use="sig")
    for number, key in enumerate(keys["keys"]):
        key["kid"] = f"{number:0128}"
    entered = {
        **({"id": name} if name else {"name": "Keyed", "allowed_scopes": "mapper/link"}),
        "identifier": f"urn:test:{token_hex(8)}",
        "authentication_method": "private_key_jwt",
        "jwks": json.dumps(keys),
        "without_secret": "yes",
    }
    planned = _plan(console, act, **entered)
    assert len(quote(entered["jwks"])) > 8_192
    assert planned.status_code == 200, planned.text
    assert 'id="plan"' in planned.text
    assert _in_no_address(planned.text, keys["keys"][0]["x"])
    assert len(max(re.findall(r'href="([^"]*)"', planned.text), key=len)) < 1_000
    assert console.send_form(planned.text).status_code in {200, 303}


def test_the_plan_of_another_form_is_refused(console, client):
    """What was entered is shown again, to be sent once more."""
    refused = _plan(console, "client-keys", id=client, jwks_uri="urn:x", csrf_token="odd")
    assert refused.status_code == 403
    assert 'value="urn:x"' in refused.text


@pytest.mark.parametrize(("noun", "path"), [("client", "/clients"), ("api", "/resource-servers")])
def test_the_name_in_a_certificate_is_registered(console, noun, path):
    """It is a field of the form that offers the method."""
    name = f"tls-{token_hex(4)}"
    planned = _plan(
        console,
        f"{noun}-create",
        new_id=name,
        name="TLS",
        identifier=f"urn:test:{name}",
        allowed_scopes="mapper/link",
        authentication_method="client_secret_post",
        tls_client_auth_san_dns="client.example",
        without_secret="yes",
    )
    assert planned.status_code == 200, planned.text
    assert console.send_form(planned.text).status_code == 200
    assert _item(console, f"{path}/{name}")["properties"] == {
        "tls_client_auth_san_dns": "client.example"
    }


def test_a_method_that_the_form_does_not_list_stays_chosen(console, client):
    """As one of a plugin: a form without a choice would register the first one."""
    form = console.get(f"/act/client-keys?id={client}&authentication_method=of_a_plugin")
    assert form.status_code == 422
    assert '<option value="of_a_plugin" selected>' in form.text
    assert _item(console, f"/clients/{client}")["authentication_method"] == "client_secret_post"


def test_the_limits_of_a_client_are_changed(console, client):
    """Times without a zone are in UTC; what is left empty is taken away."""
    path = f"/act/client-limits?id={client}"
    entered = (
        "&token_lifetime_seconds=300&starts_at=&expires_at=2040-01-31T12:00"
        "&grant_types=client_credentials&allowed_resource_servers=mapper"
        "&allowed_networks=192.0.2.0/24&g2p_answer=oauth"
    )
    assert console.confirm(path + entered).status_code == 303
    stored = _item(console, f"/clients/{client}")
    assert stored["token_lifetime_seconds"] == 300
    assert stored["expires_at"].startswith("2040-01-31T12:00:00")
    assert stored["allowed_resource_servers"] == ["mapper"]
    assert stored["properties"] == {"allowed_networks": ["192.0.2.0/24"]}
    form = console.page(path)
    assert 'value="2040-01-31T12:00:00"' in form
    assert "Nothing would change." in console.page(path + entered)
    for odd in (
        "token_lifetime_seconds=x",
        "expires_at=soon",
        "allowed_networks=x",
        "grant_types=x",
    ):
        assert console.get(f"{path}&{odd}").status_code == 422, odd
    emptied = "&token_lifetime_seconds=&expires_at=&allowed_resource_servers=&allowed_networks="
    assert console.confirm(path + emptied).status_code == 303
    stored = _item(console, f"/clients/{client}")
    assert (stored["token_lifetime_seconds"], stored["expires_at"]) == (None, None)
    assert (stored["allowed_resource_servers"], stored["properties"]) == ([], {})


def test_a_time_that_is_not_changed_keeps_its_fraction(console, client):
    """The form shows it to the second; another field is changed alone."""
    path = f"/clients/{client}"
    precise = {"expires_at": "2040-01-31T12:00:00.250000Z"}
    assert console.site.change("PATCH", path, precise).status_code == 200
    stored = _item(console, path)["expires_at"]
    act = f"/act/client-limits?id={client}&expires_at=2040-01-31T12:00"
    assert "Nothing would change." in console.page(act)
    assert console.confirm(f"{act}&token_lifetime_seconds=120").status_code == 303
    changed = _item(console, path)
    assert (changed["expires_at"], changed["token_lifetime_seconds"]) == (stored, 120)
    assert ".25" in stored


def test_a_client_is_deleted(console, client):
    """The list follows."""
    assert f'href="/act/client-delete?id={client}"' in console.page(f"/clients/client?id={client}")
    done = console.confirm(f"/act/client-delete?id={client}")
    assert done.headers["Location"] == "/clients?done=client-delete"
    assert console.get(f"/clients/client?id={client}").status_code == 404


def test_a_client_is_registered_with_its_key(console):
    """Without a secret, which its method does not use; its page follows."""
    number = token_hex(4)
    planned = _plan(
        console,
        "client-create",
        new_id=f"keyed-{number}",
        name="Keyed",
        allowed_scopes="mapper/link",
        authentication_method="private_key_jwt",
        jwks=json.dumps(jwks_of(new_key())),
    )
    answer = console.send_form(planned.text)
    assert not _VALUE.search(answer.text)
    assert f'href="/clients/client?id=keyed-{number}"' in answer.text
    assert _item(console, f"/clients/keyed-{number}")["secrets"] == []


def test_an_initial_access_token_is_shown_once_and_ended(console):
    """Within the limits of its maker, who need not name the organisation."""
    limits = Limits(organisations=frozenset({"Ministry"}))
    desk = console.operator(*ROLES["client-manager"].permissions, limits=limits)
    until = f"{console.site.clock() + timedelta(days=2):%Y-%m-%dT%H:%M}"
    with console.acting_as(desk):
        assert 'href="/clients/registration"' in console.page("/clients")
        assert "/act/registration-create" in console.page("/clients/registration")
        path = "/act/registration-create?description=Wave&scopes=mapper/link&"
        answer = console.confirm(f"{path}uses=3&until={until}")
        value = _VALUE.search(answer.text)
        assert value is not None
        page = console.page("/clients/registration")
        assert value[1] not in page
        assert "<bdi>Wave</bdi>" in page
        (token,) = re.findall(r"registration-end\?token=([\w-]+)", page)
        for odd in (f"uses=0&until={until}", f"uses=x&until={until}", "until=soon"):
            assert console.get(path + odd).status_code == 422, odd
        done = console.confirm(f"/act/registration-end?token={token}")
        assert done.headers["Location"] == "/clients/registration?done=registration-end"
    stored = _item(console, f"/registration-tokens/{token}")
    assert (stored["organisation"], stored["works"]) == ("Ministry", False)
    assert value[1] not in console.site.audit_path.read_text()


def test_the_owner_of_an_api_has_its_event_stream(console, api):
    """Begun, changed, tried again and deleted at the owner's desk."""
    limits = Limits(resource_servers=frozenset({api}))
    address = f"/apis/api?id={api}"
    with console.acting_as(console.operator(*ROLES["api-owner"].permissions, limits=limits)):
        assert f'href="/act/stream-set?id={api}"' in console.page(address)
        push = "delivery=push&endpoint_url=https://events.example/in&events=token-revoked"
        assert console.confirm(f"/act/stream-set?id={api}&{push}").status_code == 303
        page = console.page(address)
        assert "https://events.example/in" in page
        assert "/act/stream-set" not in page
        poll = "delivery=poll&endpoint_url=&events="
        assert console.confirm(f"/act/stream-edit?id={api}&{poll}").status_code == 303
        stored = _item(console, f"/event-streams/{api}")
        assert (stored["delivery"], stored["endpoint_url"], stored["events"]) == ("poll", "", [])
        assert "Nothing would change." in console.page(f"/act/stream-edit?id={api}&{poll}")
        assert console.get(f"/act/stream-edit?id={api}&delivery=push").status_code == 422
        assert console.confirm(f"/act/stream-retry?id={api}").status_code == 303
        assert console.confirm(f"/act/stream-delete?id={api}").status_code == 303
        assert console.get("/act/stream-set?id=mapper&delivery=poll").status_code == 404
    assert console.site.get(f"/event-streams/{api}").status_code == 404


def test_the_review_names_what_is_not_used(console):
    """To everyone who reads clients; each row leads to its client or API."""
    site = console.site
    idle = site.new_client(id=f"idle-{token_hex(3)}")["id"]
    since = site.clock() - timedelta(days=100)
    with site.services.database.transaction() as session:
        session.execute(update(Client).where(Client.id == idle).values(created_at=since))
    with console.acting_as(console.operator("clients:read")):
        page = console.page("/clients/review")
    assert f'href="/clients/client?id={idle}"' in page
    assert "Never asked for" in page
    for number in range(41):
        site.new_client(id=f"idle-{number}-{idle}")
    with site.services.database.transaction() as session:
        old = Client.id.like(f"idle-%-{idle}")
        session.execute(update(Client).where(old).values(created_at=since))
    first = console.page("/clients/review")
    (following,) = re.findall(r'href="(/clients/review\?cursor=[^"]+)"', first)
    assert len(first) < 60_000
    further = console.page(following)
    assert f"idle-9-{idle}" in first + further
    assert "There are none." not in further
    with console.acting_as(console.operator("keys:read")):
        assert console.get("/clients/review").status_code == 403


def test_the_settings_are_shown_without_their_secrets(console):
    """To those who may read them without limits; the defaults on request."""
    with console.acting_as(console.operator("settings:read")):
        page = console.page("/settings")
        assert 'href="/settings"' in page
        assert "admin.public_url" in page
        assert "tokens.default_lifetime_seconds" not in page
        assert "tokens.default_lifetime_seconds" in console.page("/settings?all=1")
    limits = Limits(organisations=frozenset({"Ministry"}))
    with console.acting_as(console.operator(*ROLES["auditor"].permissions, limits=limits)):
        text = console.page("/clients")
        # What concerns the whole server is not linked where it is refused.
        for screen in ("settings", "keys", "operators"):
            assert f'href="/{screen}"' not in text
            assert console.get(f"/{screen}").status_code == 403


def test_every_token_is_revoked_with_a_reason(console):
    """Of the whole server: not offered within limits."""
    assert 'href="/act/token-revoke-all"' in console.page("/tokens")
    assert "Enter a reason." in console.confirm("/act/token-revoke-all").text
    limits = Limits(organisations=frozenset({"Ministry"}))
    limited = console.operator("clients:read", "tokens:revoke", limits=limits)
    with console.acting_as(limited):
        assert "/act/token-revoke-all" not in console.page("/tokens")
        assert console.get("/act/token-revoke-all").status_code == 403
    done = console.confirm("/act/token-revoke-all", reason="INC-9")
    assert done.headers["Location"] == "/tokens?done=token-revoke-all"
    console.site.clock.advance(2)
    console.site.forget_tokens()
    (record, *_) = _item(console, "/audit?action=cut_off.recorded")["items"]
    assert record["actor"] == "operator:ada via console"


def test_a_frozen_ring_is_pruned(console):
    """The order is offered where the ring does not do it by itself."""
    ring = _item(console, "/rings")["items"][0]["name"]
    assert "/act/ring-prune" not in console.page("/keys")
    console.confirm(f"/act/ring-freeze?ring={ring}", reason="audit")
    try:
        assert f'href="/act/ring-prune?ring={ring}"' in console.page("/keys")
        for act in ("ring-prune", "ring-tick"):
            assert console.confirm(f"/act/{act}?ring={ring}").status_code == 200
    finally:
        console.confirm(f"/act/ring-unfreeze?ring={ring}", reason="over")
