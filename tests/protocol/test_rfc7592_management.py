"""Clients read, update and delete their own registration (RFC 7592)."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from authz_server.clients.models import Client, ClientSecret
from authz_server.clients.registration.models import Registration
from authz_server.operations.programmes import define_programme, list_programmes
from authz_server.operations.stops import lift_stop, plan_stop, set_stop
from support.parties import ACTOR
from support.protocol import require_refusal, running_protocol
from support.registration import REGISTER, UNLIMITED, Registrar, registrar
from support.serve_twin import ServeTwin

__all__ = ["registrar"]


def test_a_registration_is_read_without_its_secret(registrar: Registrar):
    """Case H88."""
    client = registrar.new(client_name="Ministry")
    answer = registrar.manage("GET", client)
    assert answer.status_code == 200
    secret = {"client_secret", "client_secret_expires_at"}
    assert answer.json == {name: client[name] for name in client.keys() - secret}
    assert answer.headers["Cache-Control"] == "no-store"
    assert registrar.manage("HEAD", client).status_code == 200
    with registrar.protocol.services.database.reading() as session:
        records = session.scalars(select(ClientSecret.record)).all()
        digests = session.scalars(select(Registration.token_digest)).all()
    assert client["client_secret"] not in "".join(records)
    assert client["registration_access_token"] not in "".join(digests)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_token_belongs_to_one_client(registrar: Registrar, method: str):
    """Case H91."""
    own, other = registrar.new(), registrar.new()
    document = {"client_id": other["client_id"]} if method == "PUT" else None
    unknown = {"registration_client_uri": f"{REGISTER}/0123456789abcdef0123"}
    foreign = own["registration_access_token"]
    answers = [
        registrar.manage(method, other, document, token=foreign),
        registrar.manage(method, unknown, document, token=foreign),
        registrar.manage(method, other, document, token="invented"),
        registrar.manage(method, other, document, token=other["client_secret"]),
    ]
    path = other["registration_client_uri"].removeprefix("https://authz.example")
    for answer in answers:
        require_refusal(answer, 401, "invalid_token")
        assert answer.json == answers[0].json
    require_refusal(registrar.send(method, path, document), 401, "invalid_token")
    assert registrar.manage("GET", other).status_code == 200


def test_an_update_replaces_the_metadata_and_the_token(registrar: Registrar):
    """Case H91."""
    client = registrar.new(
        "mapper/link", "mapper/resolve", client_name="Ministry", contacts=["it@example.org"]
    )
    document = {
        "client_id": client["client_id"],
        "client_secret": client["client_secret"],
        "client_name": "Treasury",
        "scope": "mapper/link",
        "token_endpoint_auth_method": "client_secret_post",
    }
    answer = registrar.manage("PUT", client, document)
    assert answer.status_code == 200
    updated = answer.json
    assert (updated["client_name"], updated["scope"]) == ("Treasury", "mapper/link")
    assert not updated.keys() & {"contacts", "client_secret"}
    assert updated["registration_access_token"] != client["registration_access_token"]
    require_refusal(registrar.manage("GET", client), 401, "invalid_token")
    require_refusal(registrar.manage("PUT", client, document), 401, "invalid_token")
    assert registrar.manage("GET", updated).json == updated
    # The secret stays, for the new method.
    credentials = registrar.credentials(client | updated)
    assert registrar.protocol.ask("token", credentials).status_code == 200
    # Without "scope", the client has all that its registration permits.
    widened = registrar.manage("PUT", updated, {"client_id": client["client_id"]}).json
    assert widened["scope"] == "mapper/link mapper/resolve"


def test_an_update_must_be_of_this_client_and_its_secret(registrar: Registrar):
    """Case H89."""
    client = registrar.new()
    client_id = client["client_id"]
    for document in (
        {},
        {"client_id": "other"},
        {"client_id": [client_id]},
        {"client_id": client_id, "client_secret": "chosen-by-the-client"},
        {"client_id": client_id, "client_secret": ["x"]},
        {"client_id": client_id, "client_secret_expires_at": 0},
        {"client_id": client_id, "client_id_issued_at": 0},
        {"client_id": client_id, "registration_access_token": "x"},
        {"client_id": client_id, "registration_client_uri": "https://authz.example/"},
        {"client_id": client_id, "scope": "mapper/resolve"},
        {"client_id": client_id, "grant_types": ["password"]},
        b"[]",
    ):
        answer = registrar.manage("PUT", client, document)
        require_refusal(answer, 400, "invalid_client_metadata")
    # A refused update leaves the token alone.
    assert registrar.manage("GET", client).status_code == 200


def test_an_update_does_not_undo_what_an_operator_decided(registrar: Registrar):
    client = registrar.new("mapper/link", "mapper/resolve")
    with registrar.protocol.parties.change() as (services, session):
        services.clients.update_client(
            session,
            client["client_id"],
            actor=ACTOR,
            allowed_scopes=["mapper/link"],
            default_scopes=[],
            organisation="Treasury",
            token_lifetime_seconds=60,
        )
    document = {"client_id": client["client_id"], "scope": "mapper/link mapper/resolve"}
    require_refusal(registrar.manage("PUT", client, document), 400, "invalid_client_metadata")
    updated = registrar.manage("PUT", client, {"client_id": client["client_id"]}).json
    assert updated["scope"] == "mapper/link"
    require_refusal(registrar.manage("PUT", updated, document), 400, "invalid_client_metadata")
    with registrar.protocol.parties.change() as (services, session):
        stored = services.clients.get_client(session, client["client_id"])
        assert (stored.organisation, stored.token_lifetime_seconds) == ("Treasury", 60)


def test_an_update_does_not_undo_a_binding_or_a_method_of_an_operator(registrar: Registrar):
    client = registrar.new(dpop_bound_access_tokens=True)
    client_id = client["client_id"]
    # The client's own decision is the client's to change.
    client = registrar.manage("PUT", client, {"client_id": client_id}).json
    assert not client.get("dpop_bound_access_tokens")
    with registrar.protocol.parties.change() as (services, session):
        services.clients.update_client(
            session, client_id, actor=ACTOR, properties={"dpop_bound_access_tokens": True}
        )
    for document in (
        {"dpop_bound_access_tokens": False},
        {},
        {"dpop_bound_access_tokens": True},
        {"dpop_bound_access_tokens": False},
    ):
        answer = registrar.manage("PUT", client, document | {"client_id": client_id})
        client = answer.json
        assert client["dpop_bound_access_tokens"] is True, document
    with registrar.protocol.parties.change() as (services, session):
        services.clients.update_client(
            session, client_id, actor=ACTOR, authentication_method="client_secret_post"
        )
    document = {"client_id": client_id, "token_endpoint_auth_method": "client_secret_basic"}
    require_refusal(registrar.manage("PUT", client, document), 400, "invalid_client_metadata")
    document["token_endpoint_auth_method"] = "client_secret_post"
    assert registrar.manage("PUT", client, document).status_code == 200


@pytest.mark.parametrize("method", ["client_secret", "client_secret_post"])
def test_a_client_sends_back_what_it_reads_after_an_operator_set_its_method(
    registrar: Registrar, method: str
):
    """RFC 7592, 2.2: a client that changes one member sends all the others as it has read them."""
    client = registrar.new(client_name="Ministry")
    client_id = client["client_id"]
    with registrar.protocol.parties.change() as (services, session):
        services.clients.update_client(
            session, client_id, actor=ACTOR, authentication_method=method
        )
    for name in ("Treasury", "Registry"):
        client = registrar.manage("GET", client).json
        sent = {each: client[each] for each in client if not each.startswith("registration_")}
        del sent["client_id_issued_at"]
        answer = registrar.manage("PUT", client, sent | {"client_name": name})
        assert answer.status_code == 200, answer.text
        client = answer.json
        with registrar.protocol.services.database.reading() as session:
            stored = session.get(Client, client_id)
            assert (stored.name, stored.authentication_method) == (name, method)
    other = {"client_id": client_id, "token_endpoint_auth_method": "client_secret_jwt"}
    require_refusal(registrar.manage("PUT", client, other), 400, "invalid_client_metadata")


@pytest.mark.parametrize("method", ["client_secret", "client_secret_post", "client_secret_jwt"])
def test_two_updates_do_not_leave_the_method_of_an_operator(registrar: Registrar, method: str):
    """Neither an update that repeats it; the client chooses again once the operator restores it."""
    client = registrar.new()
    client_id = client["client_id"]

    def set_method(value: str) -> None:
        with registrar.protocol.parties.change() as (services, session):
            services.clients.update_client(
                session, client_id, actor=ACTOR, authentication_method=value
            )

    def update(value: str):
        document = {"client_id": client_id, "token_endpoint_auth_method": value}
        return registrar.manage("PUT", client, document)

    set_method(method)
    sent_back = "client_secret_post" if method == "client_secret" else method
    other = "client_secret_jwt" if method == "client_secret" else "client_secret_basic"
    for _ in range(2):
        require_refusal(update(other), 400, "invalid_client_metadata")
        answer = update(sent_back)
        assert answer.status_code == 200, answer.text
        client = answer.json
        with registrar.protocol.services.database.reading() as session:
            assert session.get(Client, client_id).authentication_method == method
    set_method("client_secret_basic")
    answer = update("client_secret_post")
    assert answer.status_code == 200, answer.text


def test_a_change_of_method_ends_or_makes_the_secret(registrar: Registrar):
    client = registrar.new()
    public = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    keyed = registrar.manage(
        "PUT",
        client,
        {
            "client_id": client["client_id"],
            "token_endpoint_auth_method": "private_key_jwt",
            "jwks": {"keys": [public]},
        },
    ).json
    assert "client_secret" not in keyed
    refused = registrar.protocol.ask("token", registrar.credentials(client))
    require_refusal(refused, 401, "invalid_client")
    secret = registrar.manage("PUT", keyed, {"client_id": client["client_id"]}).json
    assert "jwks" not in secret
    assert secret["client_secret"] != client["client_secret"]
    assert registrar.protocol.ask("token", registrar.credentials(secret)).status_code == 200
    # A secret that signs assertions is made for nothing else.
    document = {
        "client_id": client["client_id"],
        "client_secret": secret["client_secret"],
        "token_endpoint_auth_method": "client_secret_jwt",
    }
    signing = registrar.manage("PUT", secret, document).json
    assert len(signing["client_secret"]) == 86
    document["client_secret"] = signing["client_secret"]
    assert "client_secret" not in registrar.manage("PUT", signing, document).json


def test_a_deleted_client_is_gone_with_its_tokens(registrar: Registrar):
    """Case H91. Case A15."""
    protocol, client = registrar.protocol, registrar.new()
    credentials = registrar.credentials(client)
    token = protocol.new_token(credentials)
    answer = registrar.manage("DELETE", client)
    assert (answer.status_code, answer.data) == (204, b"")
    assert "Content-Length" not in answer.headers
    assert not protocol.is_active(token)
    require_refusal(protocol.ask("token", credentials), 401, "invalid_client")
    for method in ("GET", "DELETE"):
        require_refusal(registrar.manage(method, client), 401, "invalid_token")
    records = [json.loads(line) for line in protocol.audit_trail().splitlines()]
    last = [each for each in records if each.get("action") == "client.deleted"][-1]
    assert (last["client_id"], last["actor"]) == (client["client_id"], client["client_id"])


def test_a_client_deleted_by_an_operator_takes_its_token_along(registrar: Registrar):
    """Case H91."""
    client = registrar.new()
    with registrar.protocol.parties.change() as (services, session):
        services.clients.delete_client(session, client["client_id"], actor=ACTOR)
    require_refusal(registrar.manage("GET", client), 401, "invalid_token")
    with registrar.protocol.services.database.reading() as session:
        assert session.get(Registration, client["client_id"]) is None


def test_a_disabled_client_manages_nothing(registrar: Registrar):
    client = registrar.new()
    for enabled in (False, True):
        with registrar.protocol.parties.change() as (services, session):
            services.clients.set_enabled(session, client["client_id"], actor=ACTOR, enabled=enabled)
        document = {"client_id": client["client_id"]}
        for method in ("GET", "PUT", "DELETE"):
            answer = registrar.manage(method, client, document if method == "PUT" else None)
            if enabled:
                assert answer.status_code == 200
                break
            require_refusal(answer, 403, "access_denied")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_registration_is_managed_from_the_networks_of_its_client(
    registrar: Registrar, method: str
):
    """A stolen token does not replace the keys of a client that is limited to networks."""
    client = registrar.new()
    networks = {"allowed_networks": ["198.51.100.0/24"]}
    for properties in (networks, {"allowed_networks": ["127.0.0.0/8"]}):
        with registrar.protocol.parties.change() as (services, session):
            services.clients.update_client(
                session, client["client_id"], actor=ACTOR, properties=properties
            )
        document = {"client_id": client["client_id"]} if method == "PUT" else None
        answer = registrar.manage(method, client, document)
        if properties is networks:
            invented = registrar.manage(method, client, document, token="invented")
            require_refusal(answer, 401, "invalid_token")
            assert answer.json == invented.json
            assert '"reason":"network_not_allowed"' in registrar.protocol.audit_trail()
    assert answer.status_code in {200, 204}


def test_a_client_of_a_stopped_programme_is_not_deleted(registrar: Registrar):
    """It leaves the programme that is not stopped any more, which ends without members."""
    client, by = registrar.new(), {"actor": ACTOR}
    services = registrar.protocol.services
    define_programme(services, "cash", scopes=[], clients=[client["client_id"]], **by)
    set_stop(services, plan_stop(services, "programme", "cash"), reason="INC-1", **by)
    require_refusal(registrar.manage("DELETE", client), 403, "access_denied")
    assert registrar.manage("GET", client).status_code == 200
    lift_stop(services, "programme", "cash", reason="over", **by)
    assert registrar.manage("DELETE", client).status_code == 204
    assert list_programmes(services) == ()


def test_two_updates_with_one_token_have_one_winner(registrar: Registrar):
    """Case H91."""
    client = registrar.new()
    path = client["registration_client_uri"].removeprefix("https://authz.example")
    app = registrar.protocol.app

    def update(number: int) -> int:
        answer = app.test_client().put(
            path,
            json={"client_id": client["client_id"], "client_name": f"Number {number}"},
            headers={"Authorization": f"Bearer {client['registration_access_token']}"},
        )
        return answer.status_code

    app.test_client_class, kept = None, app.test_client_class
    try:
        with ThreadPoolExecutor(8) as threads:
            statuses = sorted(threads.map(update, range(8)))
    finally:
        app.test_client_class = kept
    assert statuses == [200] + [401] * 7


def test_other_methods_are_refused(registrar: Registrar):
    client = registrar.new()
    for method in ("POST", "PATCH", "OPTIONS"):
        answer = registrar.manage(method, client)
        require_refusal(answer, 405, "invalid_request")
        assert set(answer.headers["Allow"].split(", ")) == {"DELETE", "GET", "HEAD", "PUT"}
    require_refusal(registrar.send("GET", REGISTER), 405, "invalid_request")
    for name in ("", "a/b", "%61", "%00", "\u00e9", "a.b", "x" * 129):
        answer = registrar.send("GET", f"{REGISTER}/{name}", token="x")
        require_refusal(answer, 404, "invalid_request")


def test_serve_answers_alike(sqlite_url: str, tmp_path):
    """A worker of `serve` registers, updates and deletes, as a WSGI server does."""
    with running_protocol(tmp_path, sqlite_url, has_twin=True, registration=UNLIMITED) as protocol:
        registrar, twin = Registrar(protocol), protocol.client.twin
        # These change nothing, so that both are asked.
        require_refusal(registrar.register({}), 401, "invalid_token")
        require_refusal(registrar.register(b"[]"), 400, "invalid_client_metadata")
        require_refusal(registrar.send("GET", f"{REGISTER}/x", token="y"), 401, "invalid_token")
        require_refusal(registrar.send("PATCH", f"{REGISTER}/x"), 405, "invalid_request")
        token = registrar.initial_token("mapper/link")
        client = ask(twin, f"POST {REGISTER}", token, 201, {"client_name": "Ministry"})
        protocol.services.feed.poll()
        assert registrar.manage("GET", client).json["client_name"] == "Ministry"
        path = f"{REGISTER}/{client['client_id']}"
        document = {"client_id": client["client_id"], "client_name": "Treasury"}
        client = ask(twin, f"PUT {path}", client["registration_access_token"], 200, document)
        assert client["client_name"] == "Treasury"
        ask(twin, f"DELETE {path}", client["registration_access_token"], 204)
        ask(twin, f"GET {path}", client["registration_access_token"], 401)


def ask(twin: ServeTwin, line: str, token: str, status: int, document: object = None):
    """Send a request line to `serve` alone; return the members of its answer."""
    body = b"" if document is None else json.dumps(document).encode()
    lines = [
        f"{line} HTTP/1.1",
        "Host: authz.example",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    message = "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body
    answer = twin.ask(message)
    assert answer.status == status, answer.body
    if status == 204:
        assert "content-length" not in answer.headers
        return {}
    return json.loads(answer.body)
