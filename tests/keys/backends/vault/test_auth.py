"""The ways to log in, each against a real OpenBao, with its credentials refused too."""

import os
import stat
import time
from math import inf
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from keys.backends.vault.client import VaultClient
from keys.backends.vault.settings import VaultAccess, VaultLogin
from keys.errors import BackendDenied
from keys.events import Alarm, Notify, ignore
from support.openbao import CertificateAuthority, RaftServer
from support.received_events import ReceivedEvents
from support.token_review import TokenReviewApi
from support.vault_parts import approle_access, open_client, own_token, token_access

POLICY = 'path "auth/token/lookup-self" { capabilities = ["read"] }'


@pytest.fixture(scope="module")
def admin(openbao):
    admin = openbao.admin()
    admin.write_policy("login-test", POLICY)
    return admin


def policies_of(client: VaultClient) -> list[str]:
    """Return the policies of the token that the client got."""
    return own_token(client)["policies"]


def assert_denied(access: VaultAccess, notify: Notify = ignore, match: str = "") -> None:
    """Show that no client gets a token by that access."""
    refused = pytest.raises(BackendDenied, match=match)
    with open_client(access, notify=notify) as client, refused:
        policies_of(client)


def path_with(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content + "\n")
    return path


# --------------------------------------------------------------------------------------- AppRole


def test_approle(openbao, admin, tmp_path):
    role_id, secret_id = admin.create_approle("plain", ["login-test"])
    path = path_with(tmp_path, "secret-id", secret_id)
    access = approle_access(openbao.address, role_id=role_id, secret_id_file=path)
    with open_client(access) as client:
        assert policies_of(client) == ["login-test"]


def test_an_editors_mark_is_no_part_of_a_secret_id(openbao, admin, tmp_path):
    """Case R243."""
    role_id, secret_id = admin.create_approle("marked", ["login-test"])
    path = path_with(tmp_path, "secret-id", f"\N{ZERO WIDTH NO-BREAK SPACE}{secret_id}\r\n")
    access = approle_access(openbao.address, role_id=role_id, secret_id_file=path)
    with open_client(access) as client:
        assert policies_of(client) == ["login-test"]


def test_approle_with_a_wrong_secret_id_is_denied(openbao, admin, tmp_path):
    role_id, _ = admin.create_approle("wrong", ["login-test"])
    path = path_with(tmp_path, "secret-id", "00000000-0000-0000-0000-000000000000")
    access = approle_access(openbao.address, role_id=role_id, secret_id_file=path)
    assert_denied(access, match="AppRole")


def test_a_missing_credential_is_named_and_may_come_later(openbao, admin, tmp_path):
    role_id, secret_id = admin.create_approle("late", ["login-test"])
    path = tmp_path / "secret-id"
    access = approle_access(openbao.address, role_id=role_id, secret_id_file=path)
    with open_client(access) as client:
        with pytest.raises(BackendDenied, match="secret-id"):
            policies_of(client)
        path.write_text(secret_id)
        await_login(client, "")


def test_a_refused_login_is_not_repeated_for_every_request(openbao, admin, tmp_path):
    role_id, secret_id = admin.create_approle("once", ["login-test"], secret_id_num_uses=1)
    path = path_with(tmp_path, "secret-id", "wrong")
    access = approle_access(openbao.address, role_id=role_id, secret_id_file=path)
    with open_client(access) as client:
        with pytest.raises(BackendDenied, match="refused"):
            policies_of(client)
        path.write_text(secret_id)
        for _ in range(20):
            with pytest.raises(BackendDenied, match="a moment ago"):
                policies_of(client)


def test_a_dead_token_is_logged_once_while_no_login_is_tried(openbao, admin, tmp_path, caplog):
    """Each request finds it dead; a busy server would fill its log."""
    role_id, secret_id = admin.create_approle("unreadable", ["login-test"])
    path = path_with(tmp_path, "secret-id", secret_id)
    access = approle_access(openbao.address, role_id=role_id, secret_id_file=path)
    with open_client(access) as client:
        policies_of(client)
        admin.revoke_token(client._tokens.get(inf))  # noqa: SLF001
        path.write_bytes("secret".encode("utf-16"))
        for _ in range(20):
            with pytest.raises(BackendDenied, match=f"in {path} is not UTF-8"):
                policies_of(client)
    assert caplog.text.count("is dead; logging in again") == 1


def wrapped_access(openbao, admin, tmp_path, role: str) -> tuple[VaultAccess, Path]:
    role_id, _ = admin.create_approle(role, ["login-test"])
    path = path_with(tmp_path, "secret-id", admin.wrap_secret_id(role))
    access = approle_access(openbao.address, role_id=role_id, secret_id_file=path, wrapped=True)
    return access, path


def test_a_wrapped_secret_id_is_unwrapped_once_for_all_processes(openbao, admin, tmp_path):
    access, _ = wrapped_access(openbao, admin, tmp_path, "wrapped")
    received = ReceivedEvents()
    for _ in range(2):
        with open_client(access, notify=received) as client:
            assert policies_of(client) == ["login-test"]
    assert received.of(Alarm) == []
    kept = tmp_path / "secret-id.unwrapped"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_what_a_command_of_root_unwrapped_belongs_to_the_server(openbao, admin, tmp_path):
    """Or the server would unwrap again, and take that for an interception."""
    access, path = wrapped_access(openbao, admin, tmp_path, "unwrapped-by-root")
    if os.geteuid() == 0:
        os.chown(path, 65_534, 65_534)
    with open_client(access) as client:
        assert policies_of(client) == ["login-test"]
    kept = (tmp_path / "secret-id.unwrapped").stat()
    assert (kept.st_uid, kept.st_gid) == (path.stat().st_uid, path.stat().st_gid)


def test_a_new_wrapped_secret_id_takes_the_place_of_the_old_one(openbao, admin, tmp_path):
    access, path = wrapped_access(openbao, admin, tmp_path, "renewed")
    with open_client(access) as client:
        policies_of(client)
    first = (tmp_path / "secret-id.unwrapped").read_text()
    path.write_text(admin.wrap_secret_id("renewed"))
    with open_client(access) as client:
        assert policies_of(client) == ["login-test"]
    assert (tmp_path / "secret-id.unwrapped").read_text() != first


def test_a_secret_id_that_somebody_else_unwrapped_raises_the_alarm(openbao, admin, tmp_path):
    access, path = wrapped_access(openbao, admin, tmp_path, "intercepted")
    thief = openbao.admin().client
    thief.token = path.read_text().strip()
    assert thief.sys.unwrap()["data"]["secret_id"]
    received = ReceivedEvents()
    with (
        open_client(access, notify=received) as client,
        pytest.raises(BackendDenied, match="used before, or expired"),
    ):
        policies_of(client)
    (alarm,) = received.of(Alarm)
    assert (alarm.event, alarm.subject) == ("vault.secret_id_intercepted", str(path))


def test_a_wrapping_token_made_elsewhere_is_not_unwrapped(openbao, admin, tmp_path):
    """A thief who replaces the token wraps something that he can read too."""
    access, path = wrapped_access(openbao, admin, tmp_path, "forged")
    admin.enable_auth("approle", "theirs")
    admin.create_approle("forged", ["login-test"], mount="theirs")
    forged = admin.wrap_secret_id("forged", mount="theirs")
    path.write_text(forged)
    received = ReceivedEvents()
    with (
        open_client(access, notify=received) as client,
        pytest.raises(BackendDenied, match="auth/theirs/role/forged/secret-id"),
    ):
        policies_of(client)
    assert len(received.of(Alarm)) == 1
    client = openbao.admin().client
    client.token = forged
    assert client.sys.unwrap()["data"]["secret_id"], "it was not used up"


# ------------------------------------------------------------------------------------------- JWT


def key_pair() -> tuple[str, str]:
    """Return a new private key and its public half, in PEM."""
    key = generate_private_key(SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


def claims(**more: object) -> dict[str, object]:
    return {"sub": "server-1", "aud": "openbao", "exp": int(time.time()) + 60} | more


def test_jwt(openbao, admin, tmp_path):
    private, public = key_pair()
    admin.create_jwt_role(
        "servers", ["login-test"], [public], audience="openbao", subject="server-1"
    )
    path = path_with(tmp_path, "jwt", jwt.encode(claims(), private, "ES256"))
    login = VaultLogin(method="jwt", role="servers", jwt_file=str(path))
    with open_client(VaultAccess(addresses=(openbao.address,), login=login)) as client:
        assert policies_of(client) == ["login-test"]
    path.write_text(jwt.encode(claims(sub="somebody"), private, "ES256"))
    with (
        open_client(VaultAccess(addresses=(openbao.address,), login=login)) as client,
        pytest.raises(BackendDenied, match="by JWT"),
    ):
        policies_of(client)


def test_kubernetes(openbao, admin, tmp_path):
    authority, (private, _) = CertificateAuthority(tmp_path), key_pair()
    account = {"namespace": "identity", "serviceaccount": {"name": "issuer", "uid": "uid-issuer"}}
    subject = "system:serviceaccount:identity:issuer"
    told = claims(sub=subject, aud=["openbao"]) | {"kubernetes.io": account}
    token = jwt.encode(told, private, "ES256")
    path = path_with(tmp_path, "jwt", token)
    login = VaultLogin(method="kubernetes", role="servers", jwt_file=str(path))
    access = VaultAccess(addresses=(openbao.address,), login=login)
    with TokenReviewApi(authority) as api:
        admin.create_kubernetes_role(
            "servers",
            ["login-test"],
            host=api.url,
            ca_pem=authority.certificate_path.read_text(),
            reviewer_jwt=api.reviewer_jwt,
            account="identity/issuer",
        )
        assert_denied(access, match="by Kubernetes")
        api.accounts[token] = "identity/issuer"
        with open_client(access) as client:
            assert policies_of(client) == ["login-test"]
        assert api.asked == [token, token]


# -------------------------------------------------------------------------------- TLS certificate


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls_server(authority):
    """An OpenBao that gives a token to who shows the certificate of `server-1`."""
    with RaftServer(authority=authority) as server:
        admin = server.admin()
        admin.write_policy("login-test", POLICY)
        ca_pem = authority.certificate_path.read_text()
        admin.create_certificate_role("server-1", ["login-test"], ca_pem)
        yield server


def certificate_access(tls_server, authority, name: str, **settings: str) -> VaultAccess:
    made = authority.certify(name)
    login = VaultLogin(
        method="cert",
        role="server-1",
        certificate_file=str(made.certificate_path),
        private_key_file=str(made.private_key_path),
    )
    ca_file = str(authority.certificate_path)
    addresses = (tls_server.address,)
    return VaultAccess(addresses=addresses, login=login, ca_file=ca_file, **settings)


def test_tls_certificate(tls_server, authority):
    with open_client(certificate_access(tls_server, authority, "server-1")) as client:
        assert policies_of(client) == ["login-test"]
    assert_denied(certificate_access(tls_server, authority, "server-2"), match="TLS certificate")


def test_a_tls_certificate_that_was_replaced_is_shown_at_the_next_login(tls_server, authority):
    access = certificate_access(tls_server, authority, "server-3")
    wanted = authority.certify("server-1")
    with open_client(access) as client:
        with pytest.raises(BackendDenied, match="TLS certificate"):
            policies_of(client)
        Path(access.login.certificate_file).write_bytes(wanted.certificate_path.read_bytes())
        await_login(client, "cannot be used")
        Path(access.login.private_key_file).write_bytes(wanted.private_key_path.read_bytes())
        await_login(client, "")


def await_login(client: VaultClient, problem: str) -> None:
    """Return when an attempt to log in ends with `problem`; empty: when one succeeds."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            policies_of(client)
        except BackendDenied as error:
            if problem and problem in str(error):
                return
        else:
            assert not problem
            return
        time.sleep(0.05)
    raise AssertionError(f"no login ended with {problem!r}")


# ------------------------------------------------------------------------------------------ token


def test_a_token_itself(openbao, admin):
    token = admin.create_token(["login-test"])
    with open_client(token_access(openbao.address, token=token)) as client:
        assert policies_of(client) == ["login-test"]
    assert admin.client.auth.token.lookup(token)["data"]["policies"], "it is not ours to end"


def test_a_token_in_a_file_that_an_agent_replaces(openbao, admin, tmp_path):
    first = admin.create_token(["login-test"])
    path = path_with(tmp_path, "token", first)
    login = VaultLogin(method="token", token_file=str(path))
    with open_client(VaultAccess(addresses=(openbao.address,), login=login)) as client:
        accessor = own_token(client)["accessor"]
        path.write_text(admin.create_token(["login-test"]))
        admin.revoke_token(first)
        assert own_token(client)["accessor"] != accessor


def test_a_dead_token_that_cannot_be_replaced_is_denied(openbao, admin):
    token = admin.create_token(["login-test"])
    admin.revoke_token(token)
    with (
        open_client(token_access(openbao.address, token=token)) as client,
        pytest.raises(BackendDenied),
    ):
        policies_of(client)
