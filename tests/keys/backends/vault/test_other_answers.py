"""What is not a Vault's answer is taken for none: neither for a refusal, nor for a missing key."""

from typing import Any

import pytest

from keys.backends.vault.client import VaultClient
from keys.backends.vault.http import VaultHttp, VaultRequest
from keys.backends.vault.kv import KvEngine
from keys.backends.vault.settings import VaultAccess, VaultLogin
from keys.backends.vault.transit_engine import TransitEngine
from keys.errors import BackendDenied, BackendUnavailable
from keys.events import BackendFailed
from support.received_events import ReceivedEvents
from support.scripted_server import ScriptedServer, answer_with

READ = VaultRequest("GET", "transit/keys/es256")
WRITE = VaultRequest("DELETE", "kv/metadata/es256/1", repeatable=False)
ANSWERS = [
    pytest.param(200, b"", id="nothing"),
    pytest.param(200, b"{}", id="nothing in JSON"),
    pytest.param(200, b'{"status": "ok"}', id="another program"),
    pytest.param(302, b"", id="a redirect"),
    pytest.param(303, b"{}", id="a redirect with a body"),
    pytest.param(404, b"", id="no such path"),
    pytest.param(404, b"{}", id="no such path in JSON"),
    pytest.param(403, b"", id="forbidden"),
    pytest.param(403, b'{"error": "access denied", "status": 403}', id="a gateway forbids"),
    pytest.param(401, b'{"message": "no API key", "request_id": "1"}', id="a gateway asks who"),
    pytest.param(400, b"", id="a bad request"),
    pytest.param(407, b"", id="a proxy that asks who"),
    pytest.param(500, b"", id="a fault"),
    pytest.param(500, b'{"message": "upstream"}', id="a fault of a gateway"),
]


def access(*addresses: str, **login: Any) -> VaultAccess:
    chosen = VaultLogin(**({"method": "token", "token": "t"} | login))
    return VaultAccess(addresses=addresses, login=chosen)


@pytest.fixture
def login(tmp_path) -> dict[str, Any]:
    """A login by AppRole, with its secret id in a file."""
    path = tmp_path / "secret-id"
    path.touch(0o600)
    path.write_text("secret")
    return {"method": "approle", "role_id": "r", "secret_id_file": str(path)}


@pytest.mark.parametrize(("status", "body"), ANSWERS)
@pytest.mark.parametrize("request_", [READ, WRITE], ids=["read", "write"])
def test_an_address_that_answers_so_has_failed_and_is_named(status, body, request_):
    received = ReceivedEvents()
    with ScriptedServer(answer_with(body, status=status)) as server:
        with pytest.raises(BackendUnavailable, match=server.address):
            VaultHttp(access(server.address), received).send(request_)
        assert [uri for uri, _ in received.of(BackendFailed)] == [server.address]


@pytest.mark.parametrize(("status", "body"), ANSWERS)
def test_another_address_is_asked(status, body):
    good = answer_with(b'{"data": {"keys": {}}}')
    with ScriptedServer(answer_with(body, status=status)) as one, ScriptedServer(good) as other:
        reply = VaultHttp(access(one.address, other.address), ReceivedEvents()).send(READ)
        assert reply.address == other.address


def test_a_read_without_content_is_no_answer_and_a_write_without_content_is():
    with ScriptedServer(answer_with(b"", status=204)) as server:
        http = VaultHttp(access(server.address), ReceivedEvents())
        assert http.send(WRITE).status == 204
        with pytest.raises(BackendUnavailable, match="does not answer as a Vault does"):
            http.send(READ)


@pytest.mark.parametrize(("status", "body"), ANSWERS)
def test_a_key_is_not_missing_and_nothing_is_deleted(status, body):
    """A proxy's own 404 is no empty folder, and its redirect no deletion."""
    with ScriptedServer(answer_with(body, status=status)) as server:
        client = VaultClient(access(server.address))
        for call in (
            TransitEngine(client, "transit", "es256").find,
            KvEngine(client, "kv", "es256").list_numbers,
            lambda: KvEngine(client, "kv", "es256").read(1),
            lambda: KvEngine(client, "kv", "es256").delete(1),
        ):
            with pytest.raises(BackendUnavailable):
                call()


@pytest.mark.parametrize(
    "script",
    [
        answer_with(b"", status=204),
        answer_with(b"{}"),
        answer_with(b'{"auth": null}'),
        answer_with(b'{"error": "denied"}', status=403),
    ],
)
def test_credentials_are_not_blamed_for_what_no_vault_answered(script, login):
    """Otherwise the operator is told to put a new secret id there, and logins pause."""
    with ScriptedServer(script) as server:
        client = VaultClient(access(server.address, **login))
        with pytest.raises(BackendUnavailable):
            client.send(READ)


@pytest.mark.parametrize(("status", "body"), [*ANSWERS, pytest.param(204, b"", id="no content")])
def test_a_wrapped_secret_id_is_not_taken_for_intercepted(status, body, login):
    """The alarm calls the operator at night."""
    received = ReceivedEvents()
    with ScriptedServer(answer_with(body, status=status)) as server:
        wrapped = access(server.address, secret_id_wrapped=True, **login)
        with pytest.raises(BackendUnavailable):
            VaultClient(wrapped, notify=received).send(READ)
    assert received.alarms() == []


def test_an_unwrapping_without_content_is_not_taken_for_an_interception(login):
    received = ReceivedEvents()
    origin = answer_with(b'{"data": {"creation_path": "auth/approle/role/r/secret-id"}}')

    def answer(connection, request) -> None:
        script = origin if b"/wrapping/lookup" in request else answer_with(b"", status=204)
        script(connection, request)

    with ScriptedServer(answer) as server:
        wrapped = access(server.address, secret_id_wrapped=True, **login)
        with pytest.raises(BackendUnavailable, match="without content"):
            VaultClient(wrapped, notify=received).send(READ)
    assert received.alarms() == []


def test_a_second_factor_is_named_and_not_asked_for_at_each_request(login, monkeypatch):
    monkeypatch.setattr("keys.backends.vault.tokens.FIRST_LOGIN_PAUSE_SECONDS", 60.0)
    script = answer_with(b'{"auth": {"client_token": "", "mfa_requirement": {}}, "data": null}')
    with ScriptedServer(script) as server:
        client = VaultClient(access(server.address, **login))
        for _ in range(5):
            with pytest.raises(BackendDenied, match="second factor"):
                client.send(READ)
        assert len(server.requests) == 1


def test_a_dead_token_is_logged_once_while_every_login_fails(login, caplog):
    """Each request finds it dead, and there is no pause after a login that the Vault fails at."""
    denied = answer_with(b'{"errors": ["permission denied"]}', status=403)
    fault = answer_with(b'{"errors": ["internal error"]}', status=500)
    logins = [answer_with(b'{"auth": {"client_token": "t", "lease_duration": 3600}}')]

    def answer(connection, request) -> None:
        is_login = b"/auth/approle/login" in request
        script = denied if not is_login else logins.pop() if logins else fault
        script(connection, request)

    with ScriptedServer(answer) as server:
        client = VaultClient(access(server.address, **login))
        for _ in range(5):
            with pytest.raises(BackendUnavailable):
                client.send(READ)
    assert caplog.text.count("is dead; logging in again") == 1
