"""Dynamic client registration (RFC 7591)."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from support.assertions import Signer, jwks_of, new_key
from support.clock import FakeClock
from support.parties import ACTOR
from support.protocol import ENDPOINTS, METHODS, Protocol, require_refusal
from support.registration import REGISTER, UNLIMITED, Registrar, registrar
from support.scripted_server import ScriptedServer, answer_with

__all__ = ["registrar"]

METADATA = "/.well-known/oauth-authorization-server"

PUBLIC_KEY = {
    "kty": "EC",
    "crv": "P-256",
    "kid": "one",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
}


@pytest.mark.parametrize("method", METHODS)
def test_a_client_registers_and_uses_every_endpoint(registrar: Registrar, method: str):
    """Case H88."""
    protocol = registrar.protocol
    client = registrar.new(
        "mapper/link", "mapper/resolve", scope="mapper.link", token_endpoint_auth_method=method
    )
    assert client["scope"] == "mapper/link"
    assert client["client_id_issued_at"] == int(protocol.clock().timestamp())
    assert client["client_secret_expires_at"] == 0
    assert client["grant_types"] == ["client_credentials"]
    assert client["registration_client_uri"].endswith(f"{REGISTER}/{client['client_id']}")
    credentials = registrar.credentials(client)
    answer = protocol.ask("token", credentials, without="scope")
    assert answer.json["scope"] == "mapper/link"
    assert protocol.is_active(answer.json["access_token"])
    token = answer.json["access_token"]
    assert protocol.ask("introspect", credentials, token=token).json["active"]
    assert protocol.ask("revoke", credentials, token=token).status_code == 200
    assert not protocol.is_active(token)
    (other,) = set(METHODS) - {method}
    for endpoint in ("token", "introspect", "revoke"):
        answer = protocol.offer(endpoint, other, credentials.id, credentials.secret)
        require_refusal(answer, 401, "invalid_client")


def test_types_of_authorization_details_are_registered_and_grants_are_not(registrar: Registrar):
    """RFC 9396, 10."""
    types = ["g2p_disbursement", "of_another_server"]
    grants = {"g2p_disbursement": [{}]}
    client = registrar.new(authorization_details_types=types, authorization_details_grants=grants)
    assert client["authorization_details_types"] == types
    assert "authorization_details_grants" not in client
    detail = {"type": "g2p_disbursement", "programme": "a", "currency_code": "KES"}
    answer = registrar.protocol.ask(
        "token", registrar.credentials(client), authorization_details=json.dumps([detail])
    )
    require_refusal(answer, 400, "invalid_authorization_details")
    for wrong in ("g2p_disbursement", [1], [""], ["a"] * 51, {}):
        answer = registrar.register(
            {"authorization_details_types": wrong}, registrar.initial_token("mapper/link")
        )
        require_refusal(answer, 400, "invalid_client_metadata")


def test_a_registration_is_recorded(registrar: Registrar):
    """Case L129."""
    client = registrar.new(client_name="Ministry", software_id="erp")
    trail = [json.loads(line) for line in registrar.protocol.audit_trail().splitlines()]
    records = [each for each in trail if each.get("client_id") == client["client_id"]]
    assert [each["action"] for each in records] == [
        "client.created",
        "client.registered",
        "client.secret_added",
    ]
    assert all(each["actor"].startswith("registration:") for each in records)
    assert all(each["request_id"] and each["source_address"] for each in records)


def test_metadata_is_returned_as_registered_and_unknown_members_are_ignored(registrar: Registrar):
    """Case H89."""
    sent = {
        "client_name": "Ministry",
        "client_name#fr": "Ministère",
        "client_uri": "https://ministry.example/",
        "contacts": ["it@ministry.example"],
        "software_id": "erp",
        "software_version": "1.2",
        "jwks": {"keys": [PUBLIC_KEY]},
    }
    unknown = {
        "id": "mine",
        "client_id": "mine",
        "client_secret": "chosen-by-the-client",
        "organisation": "Other",
        "permissions": ["introspect:any"],
        "allowed_scopes": ["mapper/resolve"],
        "allowed_networks": [],
        "token_lifetime_seconds": 3_600,
        "x": {"y": [1, 2.5, True]},
        "application_type": None,
    }
    token = registrar.initial_token("mapper/link", organisation="Treasury")
    client = registrar.register(sent | unknown, token).json
    assert {name: client[name] for name in sent} == sent
    assert client.keys() & unknown.keys() == {"client_id", "client_secret"}
    assert client["client_id"] != "mine"
    assert client["client_secret"] != "chosen-by-the-client"
    with registrar.protocol.parties.change() as (services, session):
        stored = services.clients.get_client(session, client["client_id"])
        assert (stored.organisation, stored.permissions) == ("Treasury", [])
        assert (stored.allowed_scopes, stored.token_lifetime_seconds) == (["mapper/link"], None)


def test_scopes_and_grants_are_those_that_the_initial_token_permits(registrar: Registrar):
    """Case H89."""
    for permitted, asked in (((), "mapper/link"), (("mapper/link",), "mapper/link mapper/resolve")):
        answer = registrar.register({"scope": asked}, registrar.initial_token(*permitted))
        require_refusal(answer, 400, "invalid_client_metadata")
        assert "scope" in answer.json["error_description"]
    answer = registrar.register({}, registrar.initial_token())
    assert (answer.status_code, answer.json["scope"]) == (201, "")
    refused = registrar.protocol.ask("token", registrar.credentials(answer.json))
    require_refusal(refused, 400, "invalid_scope")
    token = registrar.initial_token("mapper/link", grant_types=[])
    refused = registrar.register({"grant_types": ["client_credentials"]}, token)
    require_refusal(refused, 400, "invalid_client_metadata")


REFUSED = {
    "scope": ["mapper/*", 5, ["mapper/link"], "mapper/link\u0000", "no/such", "x" * 5_000],
    "grant_types": [[], "client_credentials", ["authorization_code"], [1], {}],
    "response_types": [["token"], ["code", "token"], ["code", "code"], "code", {}],
    "token_endpoint_auth_method": ["none", "client_secret", "", 7, ["client_secret_basic"]],
    "client_name": ["", "a\u0000b", "\u202e", "x" * 201, 1],
    "client_uri": ["javascript:alert(1)", "https://", "https://a b", 1, "https://x/" + "y" * 500],
    "contacts": ["it@example.org", [1], ["x"] * 11],
    "software_id": [1, "a\nb"],
    "jwks": [
        {},
        {"keys": []},
        {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]},
        {"keys": [PUBLIC_KEY | {"d": "x" * 43}]},
        {"keys": [PUBLIC_KEY, PUBLIC_KEY]},
        {"keys": [PUBLIC_KEY | {"y": PUBLIC_KEY["x"]}]},
    ],
    # HS256 is not an algorithm of the default method, RS256 is not one of the default settings.
    "token_endpoint_auth_signing_alg": ["none", "RS256", "", 7, ["ES256"]],
    "jwks_uri": ["http://keys.example/", "file:///etc/passwd", "https://u@keys.example/", 4],
}


@pytest.mark.parametrize("member", REFUSED)
def test_a_member_that_breaks_its_rule_is_refused_by_name(registrar: Registrar, member: str):
    """Case D55. Case H92."""
    # A refused registration uses no token up.
    token = registrar.initial_token("mapper/link")
    for value in REFUSED[member]:
        answer = registrar.register({member: value}, token)
        require_refusal(answer, 400, "invalid_client_metadata")
        assert member in answer.json["error_description"], value
    assert registrar.register({}, token).status_code == 201


def test_keys_belong_to_the_method(registrar: Registrar):
    keys = {"jwks": {"keys": [PUBLIC_KEY]}}
    token = registrar.initial_token("mapper/link")
    both = keys | {"jwks_uri": "https://keys.example/jwks.json"}
    require_refusal(registrar.register(both, token), 400, "invalid_client_metadata")
    method = {"token_endpoint_auth_method": "private_key_jwt"}
    require_refusal(registrar.register(method, token), 400, "invalid_client_metadata")
    # With keys that cannot sign its assertions, the client could not authenticate.
    encrypting = {"jwks": {"keys": [PUBLIC_KEY | {"use": "enc", "alg": "ECDH-ES"}]}}
    other = keys | {"token_endpoint_auth_signing_alg": "PS256"}
    of_secrets = keys | {"token_endpoint_auth_signing_alg": "HS256"}
    for unfit in (encrypting, of_secrets, other):
        refused = registrar.register(unfit | method, token)
        require_refusal(refused, 400, "invalid_client_metadata")
    by_secret = {"token_endpoint_auth_method": "client_secret_jwt"}
    of_keys = by_secret | {"token_endpoint_auth_signing_alg": "ES256"}
    require_refusal(registrar.register(of_keys, token), 400, "invalid_client_metadata")
    client = registrar.register(keys | method, token)
    assert client.status_code == 201
    update = unfit | method | {"client_id": client.json["client_id"]}
    refused = registrar.manage("PUT", client.json, update)
    require_refusal(refused, 400, "invalid_client_metadata")
    assert registrar.manage("GET", client.json).json["jwks"] == keys["jwks"]
    assert not client.json.keys() & {"client_secret", "client_secret_expires_at"}


@pytest.mark.parametrize("method", ["client_secret_jwt", "private_key_jwt"])
def test_a_client_that_signs_assertions_registers_and_uses_every_endpoint(
    registrar: Registrar, method: str
):
    protocol, key = registrar.protocol, new_key()
    keys = {"jwks": jwks_of(key)} if method == "private_key_jwt" else {}
    client = registrar.new(token_endpoint_auth_method=method, **keys)
    assert ("client_secret" in client) == (method == "client_secret_jwt")
    signer = Signer(
        client["client_id"],
        client.get("client_secret", key),
        lambda: protocol.clock().timestamp(),
        "HS256" if method == "client_secret_jwt" else "ES256",
    )
    for endpoint in ENDPOINTS:
        answer = protocol.post(endpoint, protocol.form(endpoint) | signer.form())
        assert answer.status_code == 200, answer.text
        if "client_secret" in client:
            answer = protocol.offer(
                endpoint, "client_secret_post", client["client_id"], client["client_secret"]
            )
            require_refusal(answer, 401, "invalid_client", endpoint)


def test_the_keys_of_a_client_are_not_fetched_from_inside(registrar: Registrar):
    """Case H92."""
    protocol, key = registrar.protocol, new_key()
    with ScriptedServer(answer_with(json.dumps(jwks_of(key)).encode())) as server:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
            client = registrar.new(
                token_endpoint_auth_method="private_key_jwt",
                jwks_uri=f"https://{host}:{server.port}/jwks.json",
            )
            signer = Signer(client["client_id"], key, lambda: protocol.clock().timestamp())
            for endpoint in ENDPOINTS:
                answer = protocol.post(endpoint, protocol.form(endpoint) | signer.form())
                require_refusal(answer, 401, "invalid_client", endpoint)
        assert server.connections == 0


def test_the_default_response_type_may_be_named(registrar: Registrar):
    """Case H89. Libraries send the default of RFC 7591, 2 for clients of every grant."""
    client = registrar.new("mapper/link", response_types=["code"])
    assert client["response_types"] == []
    update = {"client_id": client["client_id"], "response_types": ["code"]}
    updated = registrar.manage("PUT", client, update)
    assert (updated.status_code, updated.json["response_types"]) == (200, [])


def test_redirect_uris_have_no_use(registrar: Registrar):
    token = registrar.initial_token("mapper/link")
    for uris in (["https://client.example/callback"], "https://client.example", [1]):
        answer = registrar.register({"redirect_uris": uris}, token)
        require_refusal(answer, 400, "invalid_redirect_uri")
    assert registrar.register({"redirect_uris": []}, token).status_code == 201


def test_only_one_json_object_is_read(registrar: Registrar):
    """Case B19."""
    token = registrar.initial_token("mapper/link")
    for body in (
        b"",
        b"[]",
        b'"text"',
        b"{",
        b"{}{}",
        b"client_name=x",
        b'{"scope":"mapper/link","scope":"mapper/resolve"}',
        b'{"jwks":{"keys":[],"keys":[]}}',
        b'{"x":NaN}',
        b'{"x":1e400}',
        b'{"x":' + b"9" * 5_000 + b"}",
        b'{"client_name":"\\ud800"}',
        b'{"client_name":"\xff"}',
        b'{"x":' * 9 + b"1" + b"}" * 9,
        b'{"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    ):
        require_refusal(registrar.register(body, token), 400, "invalid_client_metadata")
    for content_type in ("application/x-www-form-urlencoded", "text/plain", "application/json+x"):
        refused = registrar.register({}, token, Content_Type=content_type)
        require_refusal(refused, 415, "invalid_request")
    for charset in ("utf-16", "iso-8859-1"):
        content_type = f"application/json; charset={charset}"
        refused = registrar.register({}, token, Content_Type=content_type)
        require_refusal(refused, 415, "invalid_request")
    refused = registrar.register({}, token, Content_Encoding="gzip")
    require_refusal(refused, 415, "invalid_request")
    refused = registrar.send("POST", f"{REGISTER}?scope=mapper/link", {}, token)
    require_refusal(refused, 400, "invalid_request")
    require_refusal(registrar.register({"x": "y" * 70_000}, token), 413, "invalid_request")
    for content_type in (
        'Application/JSON; charset="UTF-8"',
        "application/json; charset=utf-8; x=y;",
    ):
        token = registrar.initial_token("mapper/link")
        assert registrar.register({}, token, Content_Type=content_type).status_code == 201


def test_an_initial_token_is_required_and_ends(registrar: Registrar):
    clock = registrar.protocol.clock
    refused = registrar.register({})
    require_refusal(refused, 401, "invalid_token")
    assert refused.headers["WWW-Authenticate"] == 'Bearer realm="authz-server"'
    used = registrar.initial_token("mapper/link")
    assert registrar.register({}, used).status_code == 201
    ended = registrar.initial_token("mapper/link", description="ended")
    with registrar.protocol.parties.change() as (services, session):
        rows = services.initial_tokens.list_all(session)
        (row,) = [each for each in rows if each.description == "ended"]
        services.initial_tokens.end(session, row.id, actor=ACTOR)
    expiring = registrar.initial_token("mapper/link", expires_at=clock() + timedelta(seconds=5))
    clock.advance(6)
    for token in (used, ended, expiring, "invented", "x" * 5_000):
        refused = registrar.register({}, token)
        require_refusal(refused, 401, "invalid_token")
        assert 'error="invalid_token"' in refused.headers["WWW-Authenticate"]
    token = registrar.initial_token("mapper/link")
    for header in (f"Basic {token}", token, "Bearer", "Bearer "):
        refused = registrar.register({}, Authorization=header)
        require_refusal(refused, 401, "invalid_token")
        # RFC 6750, 3.1: no error code without a bearer token.
        assert refused.headers["WWW-Authenticate"] == 'Bearer realm="authz-server"'
    assert registrar.register({}, Authorization=f"bearer {token}").status_code == 201


def test_one_use_registers_one_client_however_many_try_at_once(registrar: Registrar):
    token = registrar.initial_token("mapper/link", uses=2)
    app = registrar.protocol.app

    def register(_: int) -> int:
        answer = app.test_client().post(
            REGISTER, json={}, headers={"Authorization": f"Bearer {token}"}
        )
        return answer.status_code

    app.test_client_class, kept = None, app.test_client_class
    try:
        with ThreadPoolExecutor(8) as threads:
            statuses = sorted(threads.map(register, range(8)))
    finally:
        app.test_client_class = kept
    assert statuses == [201] * 2 + [401] * 6


def test_requests_of_one_address_are_limited_and_right_tokens_get_in(start_protocol):
    """The address may be that of a proxy, from which all clients send."""
    protocol: Protocol = start_protocol(registration=UNLIMITED | {"requests_per_window": 3})
    registrar = Registrar(protocol)
    token = registrar.initial_token("mapper/link", uses=2)
    for _ in range(3):
        require_refusal(registrar.register({}, "x"), 401, "invalid_token")
    refused = registrar.register({}, "x")
    require_refusal(refused, 429, "slow_down")
    assert 1 <= int(refused.headers["Retry-After"]) <= 61
    require_refusal(registrar.register({}), 429, "slow_down")
    registered = registrar.register({}, token)
    assert registered.status_code == 201
    path = f"{REGISTER}/{registered.json['client_id']}"
    for wrong in ("x", token):
        require_refusal(registrar.send("GET", path, token=wrong), 429, "slow_down")
    own = registered.json["registration_access_token"]
    assert registrar.send("GET", path, token=own).status_code == 200
    assert registrar.send("DELETE", path, token=own).status_code == 204
    assert registrar.register({}, token).status_code == 201
    require_refusal(registrar.register({}, token), 429, "slow_down")
    clock: FakeClock = protocol.clock
    clock.advance(61)
    require_refusal(registrar.register({}, token), 401, "invalid_token")


def test_a_secret_may_have_an_end(start_protocol):
    protocol: Protocol = start_protocol(registration=UNLIMITED | {"secret_lifetime_days": 30})
    registrar = Registrar(protocol)
    client = registrar.new()
    assert client["client_secret_expires_at"] - client["client_id_issued_at"] == 30 * 86_400
    protocol.clock.advance(30 * 86_400)
    refused = protocol.ask("token", registrar.credentials(client))
    require_refusal(refused, 401, "invalid_client")
    # The next update gives the client a new secret.
    updated = registrar.manage("PUT", client, {"client_id": client["client_id"]}).json
    assert protocol.ask("token", registrar.credentials(updated)).status_code == 200


def test_registration_is_off_unless_it_is_switched_on(start_protocol):
    protocol: Protocol = start_protocol()
    assert "registration_endpoint" not in protocol.get(METADATA).json
    for method, path in (("POST", REGISTER), ("GET", f"{REGISTER}/x"), ("PUT", f"{REGISTER}/x")):
        require_refusal(protocol.send(method, path), 404, "invalid_request")


def test_the_metadata_names_the_endpoint(registrar: Registrar):
    metadata = registrar.protocol.get(METADATA).json
    assert metadata["registration_endpoint"] == f"https://authz.example{REGISTER}"
