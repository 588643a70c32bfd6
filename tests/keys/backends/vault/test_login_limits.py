"""The limits of logins: uses, ends, secret ids for one login, a Vault that lags behind, files."""

import os
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from threading import Event
from time import monotonic

import pytest

from keys.backends.vault.auth import look_up, make_login
from keys.backends.vault.client import VaultClient
from keys.backends.vault.settings import VaultAccess, VaultLogin
from keys.errors import BackendDenied, BackendUnavailable
from keys.events import Alarm, BackendFailed
from support.received_events import ReceivedEvents
from support.vault_parts import approle_access, open_client
from support.vault_proxy import ProxyAnswer, VaultProxy

LOOK_UP = 'path "auth/token/lookup-self" { capabilities = ["read"] }\n'
RENEW = 'path "auth/token/renew-self" { capabilities = ["update"] }\n'
READ = 'path "{mount}/*" {{ capabilities = ["read", "update", "create"] }}\n'
LOGIN = "/v1/auth/approle/login"
LAG_SECONDS = 0.15
#: A busy machine answers late.
PATIENT = {
    "connect_timeout_seconds": 10.0,
    "read_timeout_seconds": 10.0,
    "total_timeout_seconds": 30.0,
}
IMPATIENT = PATIENT | {"total_timeout_seconds": 1.5}


class Opened:
    """A client by AppRole with the proxy that it goes through, and its secret id's file."""

    def __init__(self, client: VaultClient, proxy: VaultProxy, path, role, received) -> None:
        self.client, self.proxy, self.path, self.role, self.received = (
            client,
            proxy,
            path,
            role,
            received,
        )
        self.logins = lambda: proxy.count(LOGIN)


@pytest.fixture
def log_in(bao_mount, tmp_path):
    """Return a function of a policy's text and a role's settings that opens a client."""

    @contextmanager
    def open_by_approle(
        policy: str = LOOK_UP + RENEW,
        *,
        private: bool = False,
        limits: Mapping[str, float] = PATIENT,
        **role: object,
    ):
        name = f"limits-{bao_mount.mount}"
        bao_mount.admin.create_key("ring", mount=bao_mount.mount)
        bao_mount.admin.write_policy(name, policy + READ.format(mount=bao_mount.mount))
        made = bao_mount.admin.create_approle(name, [name], **role)
        path = tmp_path / "secret-id"
        path.touch(0o600)
        path.write_text(made.secret_id)
        received = ReceivedEvents()
        with VaultProxy(bao_mount.server.address) as proxy:
            access = approle_access(
                proxy.address, role_id=made.role_id, secret_id_file=path, **limits
            )
            access = replace(access, login=replace(access.login, private_files=private))
            with open_client(access, notify=received) as client:
                yield Opened(client, proxy, path, name, received)

    return open_by_approle


def read(opened: Opened, bao_mount) -> int:
    return opened.client.call("GET", f"{bao_mount.mount}/keys/ring", repeatable=True).status


# ---------------------------------------------------------------------------------- num_uses


@pytest.mark.parametrize("policy", [LOOK_UP + RENEW, ""])
@pytest.mark.parametrize("uses", [1, 2, 3, 10])
def test_a_token_of_a_few_uses_is_replaced_before_it_is_used_up(log_in, bao_mount, uses, policy):
    with log_in(policy, token_num_uses=uses) as opened:
        assert [read(opened, bao_mount) for _ in range(12)] == [200] * 12
        assert opened.logins() <= 12 / uses + 1
        assert opened.received.of(Alarm) == []


def test_many_threads_use_a_token_no_more_often_than_it_may_be(log_in, bao_mount):
    with log_in(token_num_uses=10) as opened, ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: read(opened, bao_mount), range(100)))
        assert statuses == [200] * 100
        assert opened.logins() <= 15
        assert opened.received.of(Alarm) == []


def test_uses_that_went_elsewhere_are_no_fault_of_the_policy(log_in, bao_mount):
    """A retry of ours, or another program with the same token."""
    with log_in(token_num_uses=10) as opened:
        read(opened, bao_mount)
        token = opened.client._tokens.get(inf)  # noqa: SLF001 - there is no other way to it
        for _ in range(8):
            look_up(token, opened.client._http, inf)  # noqa: SLF001
        assert [read(opened, bao_mount) for _ in range(5)] == [200] * 5
        assert opened.received.of(Alarm) == []


def test_a_narrow_policy_is_still_told_and_makes_no_login_for_each_request(log_in):
    with log_in(token_num_uses=100) as opened:
        for _ in range(10):
            with pytest.raises(BackendDenied, match="its policy does not permit this"):
                opened.client.call("GET", "sys/policies/acl/any")
        assert opened.logins() <= 2
        assert opened.received.alarms() == ["vault.denied"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_does_not_share_a_token_of_a_few_uses(log_in, bao_mount):
    with log_in(token_num_uses=10) as opened:
        read(opened, bao_mount)
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # whatever goes wrong, no child is left behind
            statuses = {read(opened, bao_mount) for _ in range(9)}
            os._exit(0 if statuses == {200} else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert [read(opened, bao_mount) for _ in range(9)] == [200] * 9
        assert opened.logins() == 2


def test_that_a_token_has_few_uses_is_logged_once(log_in, bao_mount, caplog):
    with log_in(token_num_uses=2) as opened:
        for _ in range(10):
            read(opened, bao_mount)
    told = [record for record in caplog.records if "token_num_uses" in record.getMessage()]
    assert len(told) == 1


def test_a_dead_token_that_was_just_replaced_is_not_blamed_on_the_policy(log_in, bao_mount):
    with log_in() as opened:
        read(opened, bao_mount)
        admin = bao_mount.admin
        admin.revoke_token(opened.client._tokens.get(inf))  # noqa: SLF001
        assert read(opened, bao_mount) == 200
        time.sleep(1.1)
        admin.revoke_token(opened.client._tokens.get(inf))  # noqa: SLF001
        with pytest.raises(BackendDenied, match="was replaced a moment ago") as caught:
            read(opened, bao_mount)
        assert "policy" not in str(caught.value)
        assert opened.received.of(Alarm) == []


# ------------------------------------------------------------------------------ explicit_max_ttl


def test_a_token_with_an_end_is_replaced_before_it(log_in, bao_mount):
    limits = {"token_ttl": "1s", "token_explicit_max_ttl": "2s"}
    with log_in(**limits) as opened:
        end = monotonic() + 3.5
        while monotonic() < end:
            assert read(opened, bao_mount) == 200
            time.sleep(0.02)
        assert opened.received.of(Alarm) == []


# ----------------------------------------------------------------------------- one-use secret ids


def test_a_secret_id_for_one_login_is_not_thrown_away_with_a_token_that_lives(log_in, bao_mount):
    """Near its longest life a token is renewed for less and less; there is no other."""
    limits = {"token_ttl": "2s", "token_max_ttl": "4s", "secret_id_num_uses": 1}
    with log_in(**limits) as opened:
        end = monotonic() + 3.5
        while monotonic() < end:
            assert read(opened, bao_mount) == 200
            time.sleep(0.05)


def test_a_secret_id_that_is_used_up_is_named_and_a_new_one_is_taken(log_in, bao_mount):
    with log_in(secret_id_num_uses=1, token_num_uses=2) as opened:
        assert [read(opened, bao_mount) for _ in range(2)] == [200, 200]
        with pytest.raises(BackendDenied) as caught:
            read(opened, bao_mount)
        said = str(caught.value)
        assert str(opened.path) in said
        assert "it has logged in before" in said
        assert "secret_id_num_uses" in said
        opened.path.write_text(bao_mount.admin.create_secret_id(opened.role))
        time.sleep(1.1)
        assert read(opened, bao_mount) == 200


def test_a_secret_id_that_never_logged_in_is_just_refused(log_in, bao_mount):
    with log_in() as opened:
        opened.path.write_text("wrong")
        with pytest.raises(BackendDenied) as caught:
            read(opened, bao_mount)
        assert "logged in before" not in str(caught.value)


# -------------------------------------------------------------------------------------------- 412


class Lagging:
    """Answers 412 for a while from the first request after each login, as a standby does."""

    def __init__(self, proxy: VaultProxy, seconds: float = LAG_SECONDS) -> None:
        self._seconds = seconds
        self._until: float | None = 0.0
        self.refusals = 0
        proxy.answer = self

    def begin(self) -> None:
        """Lag as after a login."""
        self._until = None

    def __call__(self, method: str, path: str) -> ProxyAnswer | None:
        del method
        if path == LOGIN:
            self._until = None
            return None
        if self._until is None:
            self._until = monotonic() + self._seconds
        if monotonic() >= self._until:
            return None
        self.refusals += 1
        errors = ["required index state not present"]
        return ProxyAnswer(412, {"errors": errors})


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_vault_that_has_not_caught_up_with_a_login_is_waited_for(log_in, bao_mount, method):
    """Also by a request that must not be done twice: it was not done."""
    with log_in() as opened:
        lagging = Lagging(opened.proxy)
        path = f"{bao_mount.mount}/keys/ring" + ("/rotate" if method == "POST" else "")
        began = monotonic()
        assert opened.client.call(method, path).status == 200
        assert monotonic() - began > LAG_SECONDS
        assert 1 <= lagging.refusals < 10
        assert opened.received.of(BackendFailed) == []


def test_a_vault_that_never_catches_up_is_unavailable_in_time(log_in, bao_mount):
    with log_in(limits=IMPATIENT) as opened:
        read(opened, bao_mount)
        lagging = Lagging(opened.proxy, seconds=60)
        lagging.begin()
        began = monotonic()
        with pytest.raises(BackendUnavailable, match="has not caught up with the others"):
            read(opened, bao_mount)
        assert monotonic() - began < 15
        opened.proxy.answer = lambda _method, _path: None


def test_a_lag_is_named_where_the_last_answer_does_not_come(log_in, bao_mount):
    """An attempt may begin just before the end of the time."""
    with log_in(limits=IMPATIENT) as opened:
        read(opened, bao_mount)
        lagging, is_over = Lagging(opened.proxy, seconds=60), Event()
        lagging.begin()

        def answer(method: str, path: str) -> ProxyAnswer | None:
            if lagging.refusals:
                is_over.wait(60)
            return lagging(method, path)

        opened.proxy.answer = answer
        with pytest.raises(BackendUnavailable, match=r"caught up with the others \(TimeoutError"):
            read(opened, bao_mount)
        opened.proxy.answer = lambda _method, _path: None
        is_over.set()


def test_of_several_addresses_another_is_asked_while_there_is_time(bao_mount, log_in):
    with log_in() as opened, VaultProxy(bao_mount.server.address) as other:
        Lagging(opened.proxy, seconds=60)
        role_id = bao_mount.admin.client.auth.approle.read_role_id(opened.role)["data"]["role_id"]
        access = approle_access(
            opened.proxy.address,
            other.address,
            role_id=role_id,
            secret_id_file=opened.path,
            **PATIENT | {"total_timeout_seconds": 4.0},
        )
        with open_client(access) as client:
            assert client.call("GET", f"{bao_mount.mount}/keys/ring").status == 200
            assert other.count("keys/ring") == 1


# ------------------------------------------------------------------------------------------ files

NOWHERE = "https://127.0.0.1:9"
FILES = {
    "approle": ("secret_id_file", {"role_id": "r"}),
    "jwt": ("jwt_file", {"role": "r"}),
    "token": ("token_file", {}),
    "cert": ("private_key_file", {"certificate_file": "/etc/hostname"}),
}


@pytest.mark.parametrize("method", FILES)
def test_a_file_that_others_can_read_is_refused_when_it_is_read(tmp_path, method):
    """An agent may have written it after the start."""
    name, more = FILES[method]
    path = tmp_path / "credential"
    path.touch(0o600)
    path.write_text("secret")
    login = VaultLogin(method=method, private_files=True, **{name: str(path)}, **more)
    access = VaultAccess(addresses=(NOWHERE,), login=login)
    made = make_login(access, ReceivedEvents())
    path.chmod(0o640)
    with pytest.raises(BackendDenied, match=f"{path} is open to others than its owner: chmod 600"):
        made.log_in(None, inf)
    development = VaultAccess(addresses=(NOWHERE,), login=replace(login, private_files=False))
    with pytest.raises(AttributeError):
        make_login(development, ReceivedEvents()).log_in(None, inf)


def test_a_file_that_becomes_open_to_others_is_noticed_at_the_next_login(log_in, bao_mount):
    with log_in(private=True, token_num_uses=1) as opened:
        assert read(opened, bao_mount) == 200
        opened.path.chmod(0o644)
        with pytest.raises(BackendDenied, match="open to others"):
            read(opened, bao_mount)
        opened.path.chmod(0o600)
        time.sleep(1.1)
        assert read(opened, bao_mount) == 200


def test_the_token_of_a_service_account_has_the_platforms_mode(tmp_path):
    path = tmp_path / "token"
    path.write_text("jwt")
    path.chmod(0o644)
    login = VaultLogin(method="kubernetes", role="r", jwt_file=str(path))
    with pytest.raises(AttributeError):
        make_login(VaultAccess(addresses=(NOWHERE,), login=login), ReceivedEvents()).log_in(
            None, inf
        )
