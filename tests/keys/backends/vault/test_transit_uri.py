"""Transit by its URI and its entry point, before any Vault is asked."""

import pytest

from keys.backends.registry import BackendContext
from keys.backends.vault.settings import VaultAccess, VaultLogin
from keys.errors import BackendUnavailable, KeysError
from support.clock import FakeClock
from support.opened_backends import open_backend
from support.ports import release_port, reserve_port
from support.vault_parts import token_access


def context(ring: str = "ring", **vaults: VaultAccess) -> BackendContext:
    return BackendContext(clock=FakeClock(), ring=ring, vaults=vaults)


def test_it_is_found_by_its_scheme_and_serves_the_ring_it_was_opened_for(bao_mount):
    access = token_access(bao_mount.server.address, token=bao_mount.server.token)
    uri = f"transit://{bao_mount.mount}/some-key"
    backend = open_backend(uri, context("issuer-es256", main=access))
    assert backend.scheme == "transit"
    made = backend.create("issuer-es256", "ES256")
    assert backend.describe_versions("issuer-es256").versions == (made,)
    assert backend.describe_versions("some-key").versions == ()
    assert bao_mount.admin.read_key("some-key", mount=bao_mount.mount)["latest_version"] == 1


def test_the_vault_is_named_in_the_uri(bao_mount):
    port = reserve_port()
    try:
        vaults = {
            "main": token_access(f"http://127.0.0.1:{port}", token="t"),
            "other": token_access(bao_mount.server.address, token=bao_mount.server.token),
        }
        uri = f"transit://{bao_mount.mount}/key"
        assert (
            open_backend(f"{uri}?vault=other", context(**vaults)).describe_versions("ring").versions
            == ()
        )
        with pytest.raises(BackendUnavailable):
            open_backend(uri, context(**vaults)).describe_versions("ring")
    finally:
        release_port(port)


def test_a_mount_may_have_several_segments(openbao):
    admin = openbao.admin()
    admin.enable_transit("some/deep/mount")
    try:
        access = token_access(openbao.address, token=openbao.token)
        backend = open_backend("transit://some/deep/mount/key", context(main=access))
        assert backend.create("ring", "EdDSA").ref == "1"
        assert len(backend.sign("ring", "1", "EdDSA", [b"data"])[0]) == 64
    finally:
        admin.disable_engine("some/deep/mount")


def test_an_exportable_key_is_used_when_the_uri_says_so(bao_mount):
    bao_mount.admin.create_key("key", mount=bao_mount.mount)
    bao_mount.admin.configure_key("key", mount=bao_mount.mount, exportable=True)
    access = token_access(bao_mount.server.address, token=bao_mount.server.token)
    uri = f"transit://{bao_mount.mount}/key?allow_exportable=true"
    assert len(open_backend(uri, context(main=access)).describe_versions("ring").versions) == 1


@pytest.mark.parametrize(
    "uri",
    [
        "transit://",
        "transit://mount",
        "transit://mount/",
        "transit://mount/../key",
        "transit://mount/key#fragment",
        "transit://mount/key?vualt=main",
        "transit://user@mount/key",
        "transit://mount/key name",
        "transit://mount/key%2Fother",
    ],
)
def test_a_uri_that_names_no_key_is_refused(uri):
    with pytest.raises(KeysError, match="transit://MOUNT/KEY"):
        open_backend(uri, context(main=token_access("http://127.0.0.1:1", token="t")))


def test_a_vault_that_the_settings_do_not_know_is_refused():
    with pytest.raises(KeysError, match="no Vault is called 'main'"):
        open_backend("transit://mount/key", context())


@pytest.mark.parametrize(
    "address",
    [
        "ftp://vault:8200",
        "vault:8200",
        "http://",
        "http://a:b@vault",
        "http://vault?x=1",
        "http://vault:99999",
    ],
)
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(KeysError, match="not the address of a Vault"):
        open_backend("transit://mount/key", context(main=token_access(address, token="t")))


@pytest.mark.parametrize(
    ("login", "named"),
    [
        (VaultLogin(method="ldap"), "approle"),
        (VaultLogin(method="token"), "token_file"),
        (VaultLogin(method="approle", role_id="r"), "secret_id_file"),
        (VaultLogin(method="kubernetes"), "role"),
        (VaultLogin(method="jwt", role="r"), "jwt_file"),
        (VaultLogin(method="cert"), "certificate_file"),
        (VaultLogin(method="cert", certificate_file="c.pem"), "https"),
    ],
)
def test_a_login_that_lacks_something_is_refused(login, named):
    access = VaultAccess(addresses=("http://127.0.0.1:1",), login=login)
    with pytest.raises(KeysError, match=named):
        open_backend("transit://mount/key", context(main=access))


def test_a_ca_file_that_is_missing_is_refused(tmp_path):
    access = token_access("https://127.0.0.1:1", token="t", ca_file=str(tmp_path / "none.pem"))
    with pytest.raises(KeysError, match=r"none\.pem"):
        open_backend("transit://mount/key", context(main=access))
