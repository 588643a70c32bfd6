"""Clients whose id is the address of their metadata (draft-ietf-oauth-client-id-metadata-document).

The documents come from this machine by http, which the settings of a test permit.
"""

import json
import time
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from authz_server.app import create_app
from authz_server.endpoints import refusals
from authz_server.operations.revocation import revoke_tokens
from authz_server.operations.stops import plan_stop
from support.assertions import Signer, jwks_of, new_key
from support.client_id_documents import (
    KEY,
    SCOPES,
    Publisher,
    Site,
    publishing_keys,
    running_site,
)
from support.protocol import (
    ENDPOINTS,
    FORM_TYPE,
    TOKEN_ENDPOINTS,
    require_refusal,
    running_protocol,
)


@pytest.fixture(scope="module")
def site(module_database_url: str, tmp_path_factory) -> Iterator[Site]:
    """A site that the tests of this file share, once for each database."""
    with running_site(tmp_path_factory.mktemp("site"), module_database_url) as site:
        yield site


@pytest.fixture(autouse=True)
def every_refusal_recorded(monkeypatch):
    """Let each refusal have a record of its own: the tests read the last one."""
    monkeypatch.setattr(refusals, "SINGLE_OF_A_KIND", 1_000)


def test_such_a_client_uses_every_endpoint(site: Site):
    """Case A7."""
    before = len(site.publisher.server.requests)
    client_id = site.publisher.publish("/clients/erp")
    for endpoint in TOKEN_ENDPOINTS:
        answer = site.ask(endpoint, client_id)
        assert (answer.status_code, answer.json["scope"]) == (200, "mapper/link"), answer.text
        record = site.last_refusal()
        assert (record["event"], record["client_id"]) == ("token.issued", client_id)
        assert record["authentication_method"] == "private_key_jwt"
        token = answer.json["access_token"]
        assert site.protocol.is_active(token)
        described = site.ask("introspect", client_id, token=token).json
        assert (described["active"], described["client_id"]) == (True, client_id)
        assert site.ask("revoke", client_id, token=token).status_code == 200
        assert not site.protocol.is_active(token)
    assert len(site.publisher.server.requests) == before + 1


def test_scopes_are_those_of_the_origin_and_the_document(site: Site):
    """Case H89."""
    client_id = site.publisher.publish("/wide", scope="mapper/resolve disburse/disburse")
    answer = site.ask("token", client_id, scope="mapper.resolve")
    assert answer.json["scope"] == "mapper/resolve"
    for scope in ("mapper/link", "disburse/disburse", "mapper/unlink", "no/such"):
        require_refusal(site.ask("token", client_id, scope=scope), 400, "invalid_scope")
    all_of_origin = site.publisher.publish("/all")
    answer = site.ask("token", all_of_origin, scope="mapper/link mapper/resolve")
    assert answer.status_code == 200


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_document_that_breaks_a_rule_authenticates_nobody(site: Site, endpoint: str):
    """Case D55."""
    publish = site.publisher.publish
    private = KEY.as_dict(private=True)
    broken = {
        "client_id": [
            publish(f"/{endpoint}/id-{number}", client_id=value)
            for number, value in enumerate(
                [f"{site.publisher.origin}/{endpoint}/id-0/", site.publisher.origin, 7, None]
            )
        ],
        "client_secret": [publish(f"/{endpoint}/secret", client_secret="x")],
        "token_endpoint_auth_method": [
            publish(f"/{endpoint}/post", token_endpoint_auth_method="client_secret_post"),
            publish(f"/{endpoint}/none", token_endpoint_auth_method="none"),
            publish(f"/{endpoint}/default", without="token_endpoint_auth_method"),
        ],
        "grant_types": [publish(f"/{endpoint}/grants", grant_types=["authorization_code"])],
        "scope": [publish(f"/{endpoint}/scope", scope=["mapper/link"])],
        "jwks": [
            publish(f"/{endpoint}/keyless", without="jwks"),
            publish(f"/{endpoint}/both", jwks_uri="https://keys.example/"),
            publish(f"/{endpoint}/private", jwks={"keys": [private]}),
            publish(f"/{endpoint}/symmetric", jwks={"keys": [{"kty": "oct", "k": "YQ"}]}),
            publish(f"/{endpoint}/empty", jwks={"keys": []}),
            publish(f"/{endpoint}/unfit", token_endpoint_auth_signing_alg="PS256"),
        ],
        "token_endpoint_auth_signing_alg": [
            publish(f"/{endpoint}/of-secrets", token_endpoint_auth_signing_alg="HS256")
        ],
        "jwks_uri": [publish(f"/{endpoint}/uri", without="jwks", jwks_uri="file:///etc/passwd")],
        "not a JSON object": [],
    }
    for number, body in enumerate((b"[]", b"", b"<html>", b'{"a":1,"a":2}', b"[" * 9_000)):
        broken["not a JSON object"].append(publish(f"/{endpoint}/body-{number}"))
        site.publisher.documents[f"/{endpoint}/body-{number}"] = body
    for member, client_ids in broken.items():
        for client_id in client_ids:
            # The sender's address changes: a sender may not cause many fetches.
            site.protocol.clock.advance(20)
            require_refusal(site.ask(endpoint, client_id), 401, "invalid_client", endpoint)
            record = site.last_refusal()
            assert record["reason"] == "client_document_unusable", client_id
            assert (record["detail"], record["client_id"]) == (member, client_id)


def test_a_document_that_cannot_be_fetched_authenticates_nobody(site: Site):
    for path in ("/missing", "/large"):
        client_id = site.publisher.publish(path, client_name="x" * 20_000)
        if path == "/missing":
            del site.publisher.documents[path]
        require_refusal(site.ask("token", client_id), 401, "invalid_client")
        assert site.last_refusal()["reason"] == "client_document_unusable"


def test_nothing_else_is_fetched(site: Site):
    """Case H92."""
    origin = site.publisher.origin
    port = origin.rpartition(":")[2]
    before = len(site.publisher.server.requests)
    for client_id in (
        origin,
        f"{origin}/",
        f"{origin}/clients/../secret",
        f"{origin}/clients/%2e%2e/secret",
        f"{origin}/./clients",
        f"{origin}/erp?x=1",
        f"{origin}/erp#x",
        f"{origin}/{'x' * 128}",
        # Other spellings of one address would escape what an operator refuses or stops.
        f"{origin}/%65rp",
        f"{origin}/a%2fb",
        f"HTTP://127.0.0.1:{port}/erp",
        f"http://[::FFFF:7f00:1]:{port}/erp",
        f"http://user@127.0.0.1:{port}/erp",
        f"http://localhost:{port}/erp",
        f"https://127.0.0.1:{port}/erp",
        f"http://127.0.0.1:{int(port) - 1}/erp",
        f"http://2130706433:{port}/erp",
        "http://169.254.169.254/latest",
        "https://other.example/erp",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
    ):
        require_refusal(site.ask("token", client_id), 401, "invalid_client")
        assert site.last_refusal()["reason"] == "client_unknown", client_id
    assert len(site.publisher.server.requests) == before


def test_only_an_assertion_makes_the_server_fetch(site: Site):
    """Case A7."""
    client_id = site.publisher.publish("/by-secret")
    before = len(site.publisher.server.requests)
    for endpoint in ENDPOINTS:
        for method in ("client_secret_post", "client_secret_basic"):
            refused = site.protocol.offer(endpoint, method, client_id, "invented-secret")
            require_refusal(refused, 401, "invalid_client", endpoint)
    assert len(site.publisher.server.requests) == before


def test_another_node_judges_tokens_without_the_document(site: Site):
    """Case E64."""
    token = site.token(site.publisher.publish("/elsewhere"))
    before = len(site.publisher.server.requests)
    protocol = site.protocol
    node = create_app(protocol.services.settings, clock=protocol.clock)
    answer = node.test_client().post(
        ENDPOINTS["introspect"],
        data=urlencode(protocol.demo.mapper.form() | {"token": token}),
        headers={"Content-Type": FORM_TYPE, **protocol.demo.mapper.headers()},
    )
    node.extensions["authz_server"].maintenance.stop()
    node.extensions["authz_server"].database.close()
    node.extensions["authz_server"].sink.close()
    assert answer.json["active"] is True
    assert len(site.publisher.server.requests) == before


def test_an_operator_revokes_the_tokens_of_such_a_client(site: Site):
    client_id = site.publisher.publish("/revoked")
    token = site.token(client_id)
    assert site.protocol.is_active(token)
    revoke_tokens(site.protocol.services, kind="client", subject=client_id, actor="operator:x")
    site.protocol.services.feed.poll()
    assert not site.protocol.is_active(token)


def test_an_operator_may_write_the_address_of_such_a_client_in_any_spelling(site: Site):
    client_id = site.publisher.publish("/spelled")
    token = site.token(client_id)
    other = client_id.replace("http", "HTTP").replace("/spelled", "/%73pelled")
    services = site.protocol.services
    assert plan_stop(services, "client", other).subject == client_id
    revoked = revoke_tokens(services, kind="client", subject=other, actor="operator:x")
    assert revoked.subject == client_id
    services.feed.poll()
    assert not site.protocol.is_active(token)


def test_keys_may_be_at_an_address(sqlite_url: str, tmp_path):
    """The address is an https one, also where a test permits http."""
    trusted = {"ca_file": "authority.pem"}
    with (
        publishing_keys(tmp_path, jwks_of(KEY, kid="one")) as server,
        running_site(tmp_path, sqlite_url, outbound=trusted) as site,
    ):
        uri = f"{server.address}/keys"
        client_id = site.publisher.publish("/by-address", without="jwks", jwks_uri=uri)
        assert site.token(client_id)
        other = Signer(client_id, new_key(), lambda: site.protocol.clock().timestamp())
        form = site.protocol.form("token") | other.form()
        require_refusal(site.protocol.post("token", form), 401, "invalid_client")
        assert site.last_refusal()["reason"].startswith("assertion_")


def test_the_metadata_says_so(site: Site, start_protocol):
    path, member = (
        "/.well-known/oauth-authorization-server",
        "client_id_metadata_document_supported",
    )
    assert site.protocol.get(path).json[member] is True
    assert member not in start_protocol().get(path).json


def test_a_change_is_read_when_the_cache_ends_and_the_last_good_document_is_kept(
    sqlite_url: str, tmp_path
):
    short = {"minimum_cache_seconds": 1, "default_cache_seconds": 1, "keep_seconds": 2}
    with running_site(tmp_path, sqlite_url, outbound=short) as site:
        client_id = site.publisher.publish("/erp")
        token = site.token(client_id)
        site.publisher.publish("/erp", scope="mapper/resolve")
        time.sleep(1.1)
        # Decisions about the former document are forgotten.
        require_refusal(site.ask("token", client_id), 400, "invalid_scope")
        assert site.ask("token", client_id, scope="mapper/resolve").status_code == 200
        site.publisher.is_down = True
        time.sleep(1.1)
        assert site.ask("token", client_id, scope="mapper/resolve").status_code == 200
        time.sleep(2.2)
        require_refusal(site.ask("token", client_id, scope="mapper/resolve"), 401, "invalid_client")
        # A token is judged by the scopes of the origin meanwhile.
        assert site.protocol.is_active(token)


def ask_by(site: Site, client_id: str, key, kid: str):
    signer = Signer(client_id, key, lambda: site.protocol.clock().timestamp(), kid=kid)
    return site.protocol.post("token", site.protocol.form("token") | signer.form())


def test_a_new_key_is_found_before_the_cache_ends(sqlite_url: str, tmp_path):
    with running_site(tmp_path, sqlite_url, outbound={"minimum_cache_seconds": 1}) as site:
        client_id = site.publisher.publish("/erp", jwks=jwks_of(KEY, kid="old"))
        assert ask_by(site, client_id, KEY, "old").status_code == 200
        key = new_key()
        site.publisher.publish("/erp", jwks=jwks_of(key, kid="new"))
        deadline = time.monotonic() + 60
        while (answer := ask_by(site, client_id, key, "new")).status_code != 200:
            assert time.monotonic() < deadline
            require_refusal(answer, 401, "invalid_client")
            time.sleep(0.2)
        require_refusal(ask_by(site, client_id, KEY, "old"), 401, "invalid_client")
        # A document that describes no client is not cached, as section 4.4 of the draft requires.
        mended = site.publisher.publish("/mended", jwks={"keys": []})
        require_refusal(site.ask("token", mended), 401, "invalid_client")
        site.publisher.publish("/mended")
        while (answer := site.ask("token", mended)).status_code != 200:
            assert time.monotonic() < deadline
            require_refusal(answer, 401, "invalid_client")
            time.sleep(0.2)


def test_a_key_may_be_replaced_under_its_id(sqlite_url: str, tmp_path):
    """In the document itself, and by an address with a key of the same id."""
    first, second = new_key(), new_key()
    outbound = {"minimum_cache_seconds": 1, "ca_file": "authority.pem"}
    with (
        publishing_keys(tmp_path, jwks_of(second, kid="same")) as server,
        running_site(tmp_path, sqlite_url, outbound=outbound) as site,
    ):
        publish = site.publisher.publish
        client_id = publish("/erp", jwks=jwks_of(KEY, kid="same"))
        assert ask_by(site, client_id, KEY, "same").status_code == 200
        publish("/erp", jwks=jwks_of(first, kid="same"))
        time.sleep(1.1)
        assert ask_by(site, client_id, first, "same").status_code == 200
        require_refusal(ask_by(site, client_id, KEY, "same"), 401, "invalid_client")
        publish("/erp", without="jwks", jwks_uri=f"{server.address}/keys")
        time.sleep(1.1)
        assert ask_by(site, client_id, second, "same").status_code == 200
        require_refusal(ask_by(site, client_id, first, "same"), 401, "invalid_client")
        publish("/erp", jwks=jwks_of(first, kid="same"))
        time.sleep(1.1)
        assert ask_by(site, client_id, first, "same").status_code == 200


def test_keys_may_move_to_an_address_and_back_before_the_cache_ends(sqlite_url: str, tmp_path):
    """The request that finds the newer document goes on with what it describes."""
    moved, back = new_key(), new_key()
    outbound = {"minimum_cache_seconds": 1, "ca_file": "authority.pem"}
    with (
        publishing_keys(tmp_path, jwks_of(moved, kid="moved")) as server,
        running_site(tmp_path, sqlite_url, outbound=outbound) as site,
    ):
        publish, documents = site.publisher.publish, site.protocol.services.client_documents
        client_id = publish("/erp", jwks=jwks_of(KEY, kid="old"))
        assert ask_by(site, client_id, KEY, "old").json["scope"] == "mapper/link"
        time.sleep(1.1)
        answer = server._answer  # noqa: SLF001 - the scopes change while the keys are fetched

        def answer_and_forget(*request):
            documents.forget()
            return answer(*request)

        server._answer = answer_and_forget  # noqa: SLF001
        uri = f"{server.address}/keys"
        publish("/erp", without="jwks", jwks_uri=uri, scope="mapper/resolve")
        # The form asks for another scope than the newer document permits.
        require_refusal(ask_by(site, client_id, moved, "moved"), 400, "invalid_scope")
        require_refusal(ask_by(site, client_id, KEY, "old"), 401, "invalid_client")
        time.sleep(1.1)
        publish("/erp", jwks=jwks_of(back, kid="back"))
        assert ask_by(site, client_id, back, "back").json["scope"] == "mapper/link"
        require_refusal(ask_by(site, client_id, moved, "moved"), 401, "invalid_client")
        time.sleep(1.1)
        publish("/erp", jwks={"keys": []})
        for key, kid in ((KEY, "old"), (back, "back")):
            # An unknown key makes the server read a document that describes no client.
            require_refusal(ask_by(site, client_id, key, kid), 401, "invalid_client")
        assert site.last_refusal()["reason"] == "client_document_unusable"


def test_unknown_keys_cause_no_further_fetch_for_a_while(site: Site):
    client_id = site.publisher.publish("/keys", jwks=jwks_of(KEY, kid="old"))
    assert ask_by(site, client_id, KEY, "old").status_code == 200
    before = len(site.publisher.server.requests)
    for kid in ("unknown-1", "unknown-2", "old", "old"):
        require_refusal(ask_by(site, client_id, new_key(), kid), 401, "invalid_client")
    assert len(site.publisher.server.requests) == before


def test_an_operator_refuses_a_client(sqlite_url: str, tmp_path):
    publisher = Publisher()
    client_id = publisher.publish("/refused")
    with (
        publisher.server,
        running_protocol(
            tmp_path,
            sqlite_url,
            client_id_documents={
                "allowed_origins": {publisher.origin: SCOPES},
                "refused_client_ids": [client_id],
            },
            outbound={"plain_http": True, "allowed_networks": ["127.0.0.0/8"]},
        ) as protocol,
    ):
        site = Site(protocol, publisher)
        require_refusal(site.ask("token", client_id), 401, "invalid_client")
        assert publisher.server.requests == []


def test_serve_accepts_such_a_client(sqlite_url: str, tmp_path):
    with running_site(tmp_path, sqlite_url, has_twin=True) as site:
        client_id = site.publisher.publish("/erp")
        form = site.protocol.form("token") | site.signer(client_id).form()
        body = urlencode(form)
        message = (
            f"POST /oauth2/token HTTP/1.1\r\nHost: authz.example\r\nContent-Type: {FORM_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        answer = site.protocol.client.twin.ask(message.encode())
        assert (answer.status, json.loads(answer.body)["scope"]) == (200, "mapper/link")
