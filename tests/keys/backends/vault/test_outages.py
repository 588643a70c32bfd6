"""A Vault that is sealed, gone, hanging or cannot audit: one kind of error, in time, and back."""

import os
import signal
import time
from collections.abc import Callable
from time import monotonic

import pytest

from keys.backends.vault.client import VaultClient
from keys.backends.vault.settings import VaultAccess
from keys.backends.vault.transit import TransitBackend
from keys.errors import BackendDenied, BackendError, BackendUnavailable
from keys.events import BackendAnswered, BackendFailed, VaultTokenHeld
from support.openbao import RaftServer
from support.received_events import ReceivedEvents
from support.vault_parts import approle_access, own_token, token_access

LONGEST_CALL_SECONDS = 2.0
LONGEST_RECOVERY_SECONDS = 20.0
POLICY = """
path "transit/*" { capabilities = ["create", "read", "update"] }
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
"""


class Caller:
    """A backend on the way to its key, and how it fares."""

    def __init__(self, access: VaultAccess) -> None:
        self.access = access
        self.received = ReceivedEvents()
        self.client = VaultClient(access, notify=self.received)
        self.backend = TransitBackend(self.client, "transit", "ring", "ring")

    def sign(self) -> bytes:
        return self.backend.sign("ring", "1", "ES256", [b"data"])[0]

    def failure(self, call: Callable[[], object] | None = None) -> BackendError:
        """Return the error of a call that has to fail in time."""
        begun = monotonic()
        with pytest.raises(BackendError) as caught:
            (call or self.sign)()
        assert monotonic() - begun < LONGEST_CALL_SECONDS
        return caught.value

    def assert_unavailable(self) -> None:
        """Show that everything fails in the same way, at once after a while."""
        for call in (
            self.sign,
            lambda: self.backend.describe_versions("ring"),
            self.sign,
            self.sign,
        ):
            error = self.failure(call)
            assert isinstance(error, BackendUnavailable)
            assert error.retry_after >= 1
        await_that(lambda: "left alone" in str(self.failure()))
        assert not self.backend.health().usable

    def await_recovery(self) -> None:
        """Return once it signs again by itself."""
        await_that(lambda: not isinstance(outcome(self.sign), BackendUnavailable))
        self.sign()
        assert self.backend.health().usable


@pytest.fixture(scope="module")
def prepared(raft_server: RaftServer) -> RaftServer:
    admin = raft_server.admin()
    admin.enable_transit()
    admin.create_key("ring")
    admin.write_policy("outages", POLICY)
    return raft_server


@pytest.fixture
def caller(prepared, tmp_path):
    role_id, secret_id = prepared.admin().create_approle("outages", ["outages"], token_period="1h")
    path = tmp_path / "secret-id"
    path.write_text(secret_id)
    access = approle_access(prepared.address, role_id=role_id, secret_id_file=path)
    caller = Caller(access)
    caller.sign()
    yield caller
    caller.client.close()


def test_sealed(prepared, caller):
    """Case G79"""
    prepared.seal()
    try:
        assert "sealed" in str(caller.failure())
        caller.assert_unavailable()
    finally:
        prepared.unseal()
    caller.await_recovery()
    assert [uri for uri, _ in caller.received.of(BackendFailed)] == [prepared.address]
    assert caller.received.of(BackendAnswered) == [(prepared.address,)] * 2


def test_killed_and_started_again(prepared, caller):
    """Case G79"""
    prepared.kill()
    try:
        caller.assert_unavailable()
    finally:
        prepared.start()
    caller.await_recovery()
    assert len(caller.received.of(VaultTokenHeld)) == 1, "the token lived on"


def test_hanging(prepared, caller):
    """Cases G79, G80"""
    with prepared.paused():
        caller.assert_unavailable()
    caller.await_recovery()


def test_a_login_while_it_hangs_ends_in_time(prepared, caller):
    """Cases G80, G82"""
    late = Caller(caller.access)
    with prepared.paused():
        late.assert_unavailable()
    late.await_recovery()
    late.client.close()


def test_an_audit_device_that_is_full(tmp_path):
    """Case G79"""
    link, real = tmp_path / "audit.jsonl", tmp_path / "real.jsonl"
    real.touch()
    link.symlink_to(real)
    with RaftServer(audit=True, audit_path=str(link)) as server:
        admin = server.admin()
        admin.enable_transit()
        admin.create_key("ring")
        caller = Caller(token_access(server.address, token=server.token))
        caller.sign()
        redirect(link, "/dev/full", server)
        await_that(lambda: isinstance(outcome(caller.sign), BackendError))
        error = caller.failure()
        assert isinstance(error, BackendUnavailable)
        assert "audit device" in str(error)
        assert isinstance(
            caller.failure(lambda: caller.backend.describe_versions("ring")), BackendUnavailable
        )
        assert not caller.backend.health().usable
        redirect(link, str(real), server)
        await_that(lambda: not isinstance(outcome(caller.sign), BackendError))
        caller.client.close()


def redirect(link, target: str, server: RaftServer) -> None:
    """Have the server write its audit log elsewhere."""
    new = link.with_suffix(".new")
    new.symlink_to(target)
    new.replace(link)
    os.kill(server.process_id, signal.SIGHUP)


def outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except BackendError as error:
        return error


def await_that(condition: Callable[[], bool]) -> None:
    deadline = monotonic() + LONGEST_RECOVERY_SECONDS
    while not condition():
        assert monotonic() < deadline
        time.sleep(0.05)


def test_not_initialised():
    """Cases G79, G82"""
    with RaftServer(initialise=False) as server:
        Caller(token_access(server.address, token="none-yet")).assert_unavailable()


def test_a_wrong_port(prepared):
    """Case G79"""
    for address in (
        prepared.address.replace(str(prepared.port), str(prepared.cluster_port)),
        prepared.address.replace("http:", "https:"),
    ):
        Caller(token_access(address, token=prepared.token)).assert_unavailable()


def test_a_revoked_token_beside_a_policy_that_went_away(prepared, caller):
    """Both answer 403; only one of them is cured by a login."""
    admin = prepared.admin()
    accessor = own_token(caller.client)["accessor"]
    admin.client.auth.token.revoke_accessor(accessor)
    caller.sign()
    assert len(caller.received.of(VaultTokenHeld)) == 2
    admin.write_policy("outages", POLICY.replace("transit/*", "elsewhere/*"))
    try:
        assert isinstance(caller.failure(), BackendDenied)
    finally:
        admin.write_policy("outages", POLICY)
    assert len(caller.received.of(VaultTokenHeld)) == 2
    caller.sign()
