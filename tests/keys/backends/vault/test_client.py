"""A client's token: renewed in time, replaced when dead; no loop where the policy is at fault."""

import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic

import hvac
import pytest

from keys.backends.vault.auth import VaultToken
from keys.backends.vault.client import VaultClient
from keys.backends.vault.http import VaultRequest
from keys.backends.vault.settings import VaultLogin
from keys.backends.vault.transit import TransitBackend
from keys.errors import BackendDenied, BackendUnavailable
from keys.events import Alarm, VaultTokenHeld
from support.openbao import CertificateAuthority, RaftServer
from support.ports import release_port, reserve_port
from support.received_events import ReceivedEvents
from support.source_tree import ROOT
from support.vault_parts import approle_access, open_client, own_token, token_access

LOOK_UP = 'path "auth/token/lookup-self" { capabilities = ["read"] }\n'
RENEW = 'path "auth/token/renew-self" { capabilities = ["update"] }\n'
REVOKE = 'path "auth/token/revoke-self" { capabilities = ["update"] }\n'
SIGN = 'path "{mount}/*" {{ capabilities = ["read", "update", "create"] }}\n'


@pytest.fixture
def log_in(bao_mount, tmp_path):
    """Return a function of a policy's text that opens a client by AppRole with it."""

    @contextmanager
    def open_by_approle(policy: str, received: ReceivedEvents | None = None, **role: object):
        name = f"session-{bao_mount.mount}"
        bao_mount.admin.write_policy(name, policy + SIGN.format(mount=bao_mount.mount))
        role_id, secret_id = bao_mount.admin.create_approle(name, [name], **role)
        path = tmp_path / "secret-id"
        path.write_text(secret_id)
        address = bao_mount.server.address
        access = approle_access(address, role_id=role_id, secret_id_file=path)
        with open_client(access, notify=received or ReceivedEvents()) as client:
            yield client

    return open_by_approle


def accessor_of(client: VaultClient) -> str:
    return own_token(client)["accessor"]


def await_that(condition, seconds: float = 60) -> None:
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline
        time.sleep(0.01)


# ----------------------------------------------------------------------------------------- renewal


def test_a_token_is_renewed_in_the_background_at_half_its_lease(log_in):
    """Nobody needs it in the meantime, and it lives on."""
    received = ReceivedEvents()
    with log_in(LOOK_UP + RENEW, received, token_period="2s") as client:
        accessor = accessor_of(client)
        begun = monotonic()
        await_that(lambda: len(received.of(VaultTokenHeld)) >= 4)
        assert monotonic() - begun > 2, "longer than the token would live by itself"
        assert accessor_of(client) == accessor
    assert received.of(VaultTokenHeld)[0] == ("main", 2.0, 2.0)


def test_a_token_whose_longest_life_is_near_is_replaced(log_in):
    received = ReceivedEvents()
    with log_in(LOOK_UP + RENEW, received, token_ttl="2s", token_max_ttl="2s") as client:
        accessor = accessor_of(client)
        await_that(lambda: accessor_of(client) != accessor)
        assert received.of(Alarm) == []


def test_a_token_that_may_not_be_renewed_is_replaced(log_in):
    """Without the default policy, renewing oneself has to be granted."""
    with log_in(LOOK_UP, token_period="1s") as client:
        accessor = accessor_of(client)
        await_that(lambda: accessor_of(client) != accessor)


def test_a_batch_token_which_cannot_be_renewed_is_replaced(log_in, bao_mount):
    received = ReceivedEvents()
    with log_in("", received, token_type="batch", token_ttl="3s") as client:
        path = f"{bao_mount.mount}/keys/ring"
        await_that(
            lambda: client.call("GET", path).status == 404 and len(received.of(VaultTokenHeld)) == 2
        )
        assert received.of(Alarm) == []


def test_a_token_that_never_ends_is_left_alone(bao_mount):
    received = ReceivedEvents()
    access = token_access(bao_mount.server.address, token=bao_mount.server.token)
    with open_client(access, notify=received) as client:
        accessor_of(client)
        assert received.of(VaultTokenHeld) == []


def test_a_closed_session_ends_its_token_and_its_renewals(log_in, bao_mount):
    with log_in(LOOK_UP + RENEW + REVOKE, token_period="1h") as client:
        accessor = accessor_of(client)
        assert bao_mount.admin.client.auth.token.lookup_accessor(accessor)
    with pytest.raises(hvac.exceptions.VaultError):
        bao_mount.admin.client.auth.token.lookup_accessor(accessor)


SHORT_COMMAND = """
import sys
from keys.backends.vault.client import VaultClient
from support.vault_parts import approle_access, own_token
address, role_id, path = sys.argv[1:]
client = VaultClient(approle_access(address, role_id=role_id, secret_id_file=path))
print(own_token(client)["accessor"])
"""


def test_a_token_ends_with_the_process_that_got_it(bao_mount, tmp_path):
    """A command that a clock starts would leave a live token each time."""
    admin, name = bao_mount.admin, f"command-{bao_mount.mount}"
    admin.write_policy(name, LOOK_UP + REVOKE)
    role_id, secret_id = admin.create_approle(name, [name], token_period="1h")
    path = tmp_path / "secret-id"
    path.write_text(secret_id)
    run = subprocess.run(
        [sys.executable, "-c", SHORT_COMMAND, bao_mount.server.address, role_id, str(path)],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    accessor = run.stdout.strip()
    assert accessor
    with pytest.raises(hvac.exceptions.VaultError):
        admin.client.auth.token.lookup_accessor(accessor)


def test_no_credential_is_logged_or_shown(log_in, bao_mount, tmp_path, caplog):
    """Case G85"""
    caplog.set_level(logging.DEBUG)
    with log_in(LOOK_UP + RENEW, token_period="1h") as client:
        token = own_token(client)["id"]
        bao_mount.admin.client.auth.token.revoke(token)
        with pytest.raises(BackendDenied) as denied:
            client.call("GET", "sys/policies/acl")
        secrets = (token, (tmp_path / "secret-id").read_text())
        request = VaultRequest("POST", "x", {"secret_id": secrets[1], "token": token})
        login = VaultLogin(method="token", token=token)
        shown = [VaultToken(token, 1, renewable=True), login, request, client, denied.value]
        ours = [r.getMessage() for r in caplog.records if r.name.startswith("keys.")]
        assert ours
        for text in (*map(repr, shown), *ours):
            assert not [secret for secret in secrets if secret in text]


# ---------------------------------------------------------------------------------- dead or denied


def test_a_dead_token_is_replaced_once_for_all_callers(log_in, bao_mount):
    """Case G79"""
    received = ReceivedEvents()
    with log_in(LOOK_UP + RENEW, received, token_period="1h") as client:
        backend = TransitBackend(client, bao_mount.mount, "ring", "ring")
        backend.create("ring", "ES256")
        bao_mount.admin.client.auth.token.revoke_accessor(accessor_of(client))
        begun = monotonic()
        with ThreadPoolExecutor(8) as pool:
            views = list(pool.map(lambda _: backend.describe_versions("ring"), range(16)))
        assert all(len(view.versions) == 1 for view in views)
        assert monotonic() - begun < 20
        assert len(received.of(VaultTokenHeld)) == 2, "the first login and one more"
        assert received.of(Alarm) == []


def test_a_policy_that_is_too_narrow_is_an_alarm_and_no_loop(log_in, bao_mount):
    """Case G79"""
    bao_mount.admin.enable_transit(f"{bao_mount.mount}-other")
    try:
        received = ReceivedEvents()
        with log_in(LOOK_UP + RENEW, received, token_period="1h") as client:
            backend = TransitBackend(client, f"{bao_mount.mount}-other", "ring", "ring")
            accessor = accessor_of(client)
            for _ in range(10):
                with pytest.raises(BackendDenied, match="policy does not permit"):
                    backend.describe_versions("ring")
            assert accessor_of(client) == accessor
            assert len(received.of(VaultTokenHeld)) == 1
            (alarm,) = received.of(Alarm)
            assert alarm.event == "vault.denied"
            assert alarm.subject == f"GET /v1/{bao_mount.mount}-other/keys/ring"
    finally:
        bao_mount.admin.disable_engine(f"{bao_mount.mount}-other")


def test_a_token_that_may_not_look_itself_up_makes_no_login_for_each_request(log_in):
    """Without the default policy, looking oneself up has to be granted too."""
    received = ReceivedEvents()
    with log_in("", received, token_period="1h") as client:
        for _ in range(10):
            with pytest.raises(BackendDenied):
                client.call("GET", "sys/policies/acl")
        assert len(received.of(VaultTokenHeld)) <= 2
        assert len(received.of(Alarm)) == 1


# -------------------------------------------------------------------------------------- elsewhere


def test_a_namespace_of_its_own(openbao):
    """What is in a namespace is not seen from outside, and the other way round."""
    root = openbao.admin()
    root.create_namespace("team")
    inside = openbao.admin("team")
    inside.enable_transit()
    inside.create_key("ring")
    access = token_access(openbao.address, token=openbao.token, namespace="team")
    with open_client(access) as client:
        assert (
            len(
                TransitBackend(client, "transit", "ring", "ring").describe_versions("ring").versions
            )
            == 1
        )
    for other in ("", "nobody"):
        access = token_access(openbao.address, token=openbao.token, namespace=other)
        with open_client(access) as client, pytest.raises(BackendDenied):
            TransitBackend(client, "transit", "ring", "ring").describe_versions("ring")


def test_the_environment_of_other_tools_has_no_say(bao_mount, monkeypatch):
    """Other clients of a Vault take address, token and namespace from it."""
    for name in ("ADDR", "TOKEN", "NAMESPACE", "CACERT", "CLIENT_CERT"):
        monkeypatch.setenv(f"VAULT_{name}", "theirs")
    access = token_access(bao_mount.server.address, token=bao_mount.server.token)
    with open_client(access) as client:
        assert TransitBackend(client, bao_mount.mount, "ring", "ring").create("ring", "ES256")


def test_a_dead_address_among_several_is_no_outage(bao_mount):
    """Case G79"""
    port = reserve_port()
    try:
        dead = f"http://127.0.0.1:{port}"
        access = token_access(dead, bao_mount.server.address, token=bao_mount.server.token)
        with open_client(access) as client:
            backend = TransitBackend(client, bao_mount.mount, "ring", "ring")
            assert backend.create("ring", "ES256").ref == "1"
            assert len(backend.sign("ring", "1", "ES256", [b"data"])) == 1
    finally:
        release_port(port)


def test_a_quota_is_unavailable_in_time_and_passes(bao_mount):
    """Case G79"""
    access = token_access(bao_mount.server.address, token=bao_mount.server.token)
    with open_client(access) as client:
        backend = TransitBackend(client, bao_mount.mount, "ring", "ring")
        backend.create("ring", "ES256")
        bao_mount.admin.limit_rate("few", f"{bao_mount.mount}/", 0.01)
        try:
            with pytest.raises(BackendUnavailable, match="too many requests") as caught:  # noqa: PT012
                for _ in range(5):
                    begun = monotonic()
                    backend.sign("ring", "1", "ES256", [b"data"])
            assert monotonic() - begun < 20
            assert caught.value.retry_after >= 1
        finally:
            bao_mount.admin.unlimit_rate("few")
        assert len(backend.sign("ring", "1", "ES256", [b"data"])) == 1


def test_tls_with_the_right_ca_and_with_a_wrong_one(tmp_path):
    """Case G79"""
    authority = CertificateAuthority(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    wrong = CertificateAuthority(other)
    with RaftServer(authority=authority) as server:
        server.admin().enable_transit()
        for ca, trusted in ((authority, True), (wrong, False)):
            ca_file = str(ca.certificate_path)
            access = token_access(server.address, token=server.token, ca_file=ca_file)
            with open_client(access) as client:
                health = TransitBackend(client, "transit", "ring", "ring").health()
                assert health.usable is trusted
                assert trusted or "certificate verify failed" in health.detail
