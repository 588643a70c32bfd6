"""Values that no Vault answers: each is a failure of the Vault, never a fault of the server."""

import json
import threading
import time
from base64 import b64encode
from types import SimpleNamespace
from typing import Any

import pytest

from keys.backends.vault import tokens
from keys.backends.vault.auth import VaultToken
from keys.backends.vault.client import VaultClient
from keys.backends.vault.doctor import examine_key, examine_token, held_rights
from keys.backends.vault.http import VaultReply
from keys.backends.vault.kv import KvEngine
from keys.backends.vault.policy import VaultPlace
from keys.backends.vault.settings import VaultAccess, VaultLogin
from keys.backends.vault.tokens import RENEWAL_RETRY_SECONDS, TokenKeeper
from keys.backends.vault.values import LARGEST_NUMBER, number_of
from keys.errors import BackendBroken, BackendDenied, BackendError, BackendUnavailable
from keys.events import ignore
from support.scripted_server import ScriptedServer, answer_with

ODD_NUMBERS = ["abc", "3600", -1, True, [3600], {"seconds": 3600}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, 0), (0, 0), (900, 900), (0.5, 1), (10**18, LARGEST_NUMBER), (1e300, LARGEST_NUMBER)],
)
def test_a_number_is_one_that_a_thread_can_wait_for(value, expected):
    assert number_of({"ttl": value}, "ttl") == expected


def login(tmp_path) -> dict[str, Any]:
    path = tmp_path / "secret-id"
    path.touch(0o600)
    path.write_text("secret")
    return {"method": "approle", "role_id": "r", "secret_id_file": str(path)}


def client_of(server: ScriptedServer, **chosen: Any) -> VaultClient:
    return VaultClient(VaultAccess(addresses=(server.address,), login=VaultLogin(**chosen)))


@pytest.mark.parametrize("value", ODD_NUMBERS, ids=repr)
@pytest.mark.parametrize("name", ["lease_duration", "num_uses"])
def test_a_login_with_an_odd_number_is_an_outage(tmp_path, name, value):
    """Each token request would be answered with 500 otherwise."""
    auth = {"client_token": "s.token", "lease_duration": 60, "renewable": True, name: value}
    with ScriptedServer(answer_with(json.dumps({"auth": auth}).encode())) as server:
        client = client_of(server, **login(tmp_path))
        with pytest.raises(BackendUnavailable, match=f"{name!r} was answered without a number"):
            client.call("GET", "transit/keys/es256", repeatable=True)


@pytest.mark.parametrize("value", [["s.token"], 7, True, "s.\r\nX-More: 1", "s.t\N{SNOWMAN}"])
def test_a_token_that_no_header_can_carry_is_an_outage(tmp_path, value):
    auth = {"client_token": value, "lease_duration": 60, "renewable": True}
    with ScriptedServer(answer_with(json.dumps({"auth": auth}).encode())) as server:
        client = client_of(server, **login(tmp_path))
        with pytest.raises(BackendUnavailable, match="no token of a Vault"):
            client.call("GET", "transit/keys/es256", repeatable=True)


@pytest.mark.parametrize("value", ODD_NUMBERS, ids=repr)
def test_an_odd_lifetime_of_a_given_token_is_an_outage(value):
    body = json.dumps({"data": {"ttl": value, "renewable": True}}).encode()
    with ScriptedServer(answer_with(body)) as server:
        client = client_of(server, method="token", token="t")
        with pytest.raises(BackendUnavailable, match="'ttl' was answered without a number"):
            client.call("GET", "transit/keys/es256", repeatable=True)


class ShortLogin:
    """Logs in with a token that is to be renewed at once."""

    gives_new_tokens = True

    def log_in(self, http, deadline) -> VaultToken:
        del http, deadline
        return VaultToken("s.token", 0.01, renewable=True)


def keeper_with(answer: dict[str, Any]) -> TokenKeeper:
    http = SimpleNamespace(send=lambda *_: VaultReply(200, answer, "http://vault"))
    return TokenKeeper(ShortLogin(), http, "main", ignore, 1.0)


def test_a_renewal_with_an_odd_number_is_tried_again():
    auth = {"client_token": "s.token", "lease_duration": "abc", "renewable": True}
    keeper = keeper_with({"auth": auth})
    keeper._log_in(time.monotonic() + 1)  # noqa: SLF001 - without the thread that renews
    time.sleep(0.02)
    assert keeper.renew_if_due() == RENEWAL_RETRY_SECONDS


def test_the_renewal_goes_on_after_a_fault(monkeypatch, caplog):
    """Otherwise the process logs in again for each lease, and a renewed token is never seen."""
    monkeypatch.setattr(tokens, "LONGEST_LOGIN_PAUSE_SECONDS", 0.01)
    keeper, faults, went_on = keeper_with({}), [ValueError("a fault")], threading.Event()

    def renew() -> float:
        if faults:
            raise faults.pop()
        went_on.set()
        return 0.01

    monkeypatch.setattr(keeper, "renew_if_due", renew)
    keeper.get(time.monotonic() + 10)
    assert went_on.wait(30)
    keeper.close()
    assert "the renewal of a token failed" in caplog.text


def answering(data: object) -> SimpleNamespace:
    """Return a client whose Vault answers with these data."""
    reply = VaultReply(200, {"data": data}, "http://vault")
    return SimpleNamespace(name="main", token_uses=0, call=lambda *_, **__: reply)


@pytest.mark.parametrize("name", ["ttl", "creation_ttl", "period", "explicit_max_ttl"])
@pytest.mark.parametrize("value", ODD_NUMBERS, ids=repr)
def test_the_doctor_names_an_odd_number_of_a_token(name, value):
    data = {"policies": ["authz"], "ttl": 60, "creation_ttl": 60, "renewable": True, name: value}
    with pytest.raises(BackendUnavailable, match=f"{name!r} was answered without a number"):
        examine_token(answering(data))


@pytest.mark.parametrize("policies", ["root", 7, [{"name": "root"}], {"root": 1}, None])
def test_the_doctor_reads_odd_policies(policies):
    assert examine_token(answering({"policies": policies, "ttl": 60, "renewable": True}))


def test_the_doctor_names_an_odd_period_of_a_key():
    place = VaultPlace("transit", "main", "transit", "es256")
    with pytest.raises(BackendUnavailable, match="'auto_rotate_period'"):
        examine_key(answering({"auto_rotate_period": "abc"}), place, followed=False)


@pytest.mark.parametrize("rights", ["root", 7, [["read"]], {"read": True}])
def test_odd_capabilities_are_none(rights):
    held = held_rights(answering({"transit/sign/es256": rights}), ["transit/sign/es256"])
    assert "read" not in held["transit/sign/es256"]
    assert "root" not in held["transit/sign/es256"]


@pytest.mark.parametrize("data", ["abc", 7, ["read"]])
def test_odd_data_of_capabilities_are_refused(data):
    with pytest.raises(BackendDenied):
        held_rights(answering(data), ["transit/sign/es256"])


#: An EC key on a curve that the library does not support.
_OTHER_CURVE = b64encode(
    bytes.fromhex("302c020100301406072a8648ce3d020106092b240303020801010102") + bytes(18)
).decode()


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "\ud800",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        f"-----BEGIN PRIVATE KEY-----\n{_OTHER_CURVE}\n-----END PRIVATE KEY-----\n",
    ],
)
@pytest.mark.parametrize("created", ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05", "abc", 7, None])
def test_a_secret_that_is_no_key_is_an_alarm(pem, created):
    data = {"metadata": {"created_time": created}, "data": {"alg": "ES256", "private_key": pem}}
    with pytest.raises(BackendBroken):
        KvEngine(answering(data), "kv", "es256").read(1)


@pytest.mark.parametrize("error", [BackendUnavailable("away", 1), BackendBroken("odd")])
def test_every_failure_of_a_renewal_is_tried_again(monkeypatch, error: BackendError):
    keeper = keeper_with({})

    def fail(*_: object) -> None:
        raise error

    keeper._log_in(time.monotonic() + 1)  # noqa: SLF001
    monkeypatch.setattr(tokens, "renew", fail)
    time.sleep(0.02)
    assert keeper.renew_if_due() == RENEWAL_RETRY_SECONDS
