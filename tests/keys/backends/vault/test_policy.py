"""The printed policies on a real OpenBao: what they allow works, all else is refused."""

import base64
import secrets

import pytest
import requests

from keys.backend import TracedSignature
from keys.backends.vault.kv import VaultKvBackend
from keys.backends.vault.policy import VaultPlace, VaultRole, find_place, grants_for, render_policy
from keys.backends.vault.transit import TransitBackend
from keys.errors import BackendDenied
from support.vault_parts import open_client, token_access

DIGEST = base64.b64encode(bytes(32)).decode()
PINNED = {"input": DIGEST, "prehashed": True, "key_version": 1}
UNPINNED = {"input": DIGEST, "prehashed": True}
BOTH_FLOORS = {"min_encryption_version": 2, "min_decryption_version": 2}
S, R, E, D = VaultRole.SERVER, VaultRole.ROTATOR, VaultRole.EMERGENCY, VaultRole.DESTROY
NOBODY = frozenset()


@pytest.fixture
def transit(bao_mount):
    """A transit key of two versions, and another beside it."""
    bao_mount.admin.create_key("oidc", mount=bao_mount.mount)
    bao_mount.admin.rotate_key("oidc", mount=bao_mount.mount)
    bao_mount.admin.create_key("other", mount=bao_mount.mount)
    return bao_mount


@pytest.fixture
def kv(openbao):
    """A KV engine with two versions of a ring's key, and another secret."""
    admin, mount = openbao.admin(), f"kv-{secrets.token_hex(4)}"
    admin.enable_kv(mount)
    admin.call("POST", f"{mount}/data/other/1", {"data": {"x": "y"}})
    with open_client(token_access(openbao.address, token=openbao.token)) as client:
        backend = VaultKvBackend(client, mount, "oidc/es256", "es256")
        backend.create("es256", "ES256")
        backend.create("es256", "ES256")
        yield openbao, admin, mount
    admin.disable_engine(mount)


def token_for(admin, role, place, *, itself=False):
    name = f"policy-{secrets.token_hex(4)}"
    admin.write_policy(name, render_policy("of a test", grants_for(role, {place: itself})))
    return admin.create_token([name])


def status(server, token, method, path, body=None):
    with requests.Session() as client:
        client.trust_env = False
        headers = {"X-Vault-Token": token}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        address = f"{server.address}/v1/{path}"
        reply = client.request(method, address, json=body, headers=headers, timeout=10)
        return reply.status_code


@pytest.mark.parametrize(
    ("method", "path", "body", "allowed"),
    [
        ("POST", "{m}/sign/oidc", PINNED, {S}),
        ("POST", "{m}/sign/oidc", UNPINNED, NOBODY),
        ("POST", "{m}/sign/oidc/sha2-256", PINNED, NOBODY),
        ("POST", "{m}/sign/other", PINNED, NOBODY),
        ("GET", "{m}/keys/oidc", None, {S, R, E, D}),
        ("GET", "{m}/keys/other", None, NOBODY),
        ("LIST", "{m}/keys", None, NOBODY),
        ("POST", "{m}/keys/oidc/rotate", {}, {R, E}),
        ("POST", "{m}/keys/other/rotate", {}, NOBODY),
        ("POST", "{m}/keys/oidc/config", {"min_encryption_version": 2}, {R, E, D}),
        ("POST", "{m}/keys/oidc/config", BOTH_FLOORS, {E, D}),
        ("POST", "{m}/keys/oidc/config", {"exportable": True}, NOBODY),
        (
            *("POST", "{m}/keys/oidc/config"),
            *({"min_encryption_version": 2, "exportable": True}, NOBODY),
        ),
        ("POST", "{m}/keys/oidc/config", {"deletion_allowed": True}, NOBODY),
        ("POST", "{m}/keys/oidc/config", {"allow_plaintext_backup": True}, NOBODY),
        ("POST", "{m}/keys/oidc/config", {"auto_rotate_period": "1h"}, NOBODY),
        ("GET", "{m}/export/signing-key/oidc", None, NOBODY),
        ("GET", "{m}/backup/oidc", None, NOBODY),
        ("POST", "{m}/restore/oidc", {"backup": "x"}, NOBODY),
        ("POST", "{m}/keys/oidc", {"type": "ecdsa-p256"}, NOBODY),
        ("POST", "{m}/keys/new", {"type": "ecdsa-p256"}, NOBODY),
        ("DELETE", "{m}/keys/oidc", None, NOBODY),
        ("DELETE", "{m}/keys/oidc/soft-delete", None, NOBODY),
        ("POST", "{m}/encrypt/oidc", {"plaintext": DIGEST}, NOBODY),
        ("POST", "{m}/hmac/oidc", {"input": DIGEST}, NOBODY),
        ("GET", "sys/mounts", None, NOBODY),
        ("GET", "sys/policies/acl", None, NOBODY),
        ("POST", "auth/token/create", {}, NOBODY),
        ("GET", "auth/token/lookup-self", None, {S, R, E, D}),
        ("POST", "auth/token/renew-self", {}, {S, R, E, D}),
    ],
)
def test_transit_refuses_whatever_an_identity_does_not_need(transit, method, path, body, allowed):
    place = VaultPlace("transit", "main", transit.mount, "oidc")
    for role in VaultRole:
        token = token_for(transit.admin, role, place)
        code = status(transit.server, token, method, path.format(m=transit.mount), body)
        if role in allowed:
            assert code in {200, 204}, (role, code)
        else:
            assert code == 403, (role, code)


@pytest.mark.parametrize(
    ("method", "path", "body", "allowed"),
    [
        ("GET", "{m}/data/oidc/es256/1", None, {S, R, E, D}),
        ("LIST", "{m}/metadata/oidc/es256", None, {S, R, E, D}),
        ("POST", "{m}/data/oidc/es256/9", {"data": {}, "options": {"cas": 0}}, {R, E}),
        ("POST", "{m}/data/oidc/es256/1", {"data": {"x": "y"}}, NOBODY),
        ("PATCH", "{m}/data/oidc/es256/1", {"data": {"x": "y"}}, NOBODY),
        ("DELETE", "{m}/data/oidc/es256/1", None, NOBODY),
        ("POST", "{m}/delete/oidc/es256/1", {"versions": [1]}, NOBODY),
        ("POST", "{m}/destroy/oidc/es256/1", {"versions": [1]}, NOBODY),
        ("DELETE", "{m}/metadata/oidc/es256/1", None, {D}),
        ("POST", "{m}/metadata/oidc/es256/1", {"max_versions": 1}, NOBODY),
        ("GET", "{m}/data/other/1", None, NOBODY),
        ("POST", "{m}/data/other/2", {"data": {}}, NOBODY),
        ("LIST", "{m}/metadata/other", None, NOBODY),
        ("LIST", "{m}/metadata", None, NOBODY),
        ("POST", "{m}/config", {"max_versions": 1}, NOBODY),
    ],
)
def test_kv_refuses_whatever_an_identity_does_not_need(kv, method, path, body, allowed):
    server, admin, mount = kv
    place = VaultPlace("kv", "main", mount, "oidc/es256")
    for role in VaultRole:
        token = token_for(admin, role, place)
        code = status(server, token, method, path.format(m=mount), body)
        if role in allowed:
            assert code in {200, 204}, (role, code)
        else:
            assert code == 403, (role, code)
        if role in {R, E} and "/9" in path:
            admin.call("DELETE", f"{mount}/metadata/oidc/es256/9")


def test_each_identity_does_its_work_through_the_backend(transit):
    place = VaultPlace("transit", "main", transit.mount, "oidc")

    def open_as(role, *, itself=False):
        token = token_for(transit.admin, role, place, itself=itself)
        return open_client(token_access(transit.server.address, token=token))

    with open_as(S) as client:
        server = TransitBackend(client, transit.mount, "oidc", "es256")
        assert server.health().usable
        assert isinstance(server.sign("es256", "1", "ES256", [b"x"])[0], TracedSignature)
        with pytest.raises(BackendDenied):
            server.create("es256", "ES256")
        with pytest.raises(BackendDenied):
            server.fence("es256", "2")
    with open_as(R) as client:
        rotator = TransitBackend(client, transit.mount, "oidc", "es256")
        assert rotator.create("es256", "ES256").ref == "3"
        rotator.fence("es256", "2")
        with pytest.raises(BackendDenied):
            rotator.sign("es256", "2", "ES256", [b"x"])
        with pytest.raises(BackendDenied):
            rotator.destroy("es256", "2")
    with open_as(S, itself=True) as client:
        both = TransitBackend(client, transit.mount, "oidc", "es256")
        assert both.create("es256", "ES256").ref == "4"
        both.fence("es256", "3")
        assert both.sign("es256", "3", "ES256", [b"x"])
    with open_as(D) as client:
        destroyer = TransitBackend(client, transit.mount, "oidc", "es256")
        destroyer.destroy("es256", "3")
        assert [version.ref for version in destroyer.describe_versions("es256").versions] == [
            "3",
            "4",
        ]


def test_each_identity_does_its_work_on_secrets(kv):
    server, admin, mount = kv
    place = VaultPlace("kv", "main", mount, "oidc/es256")

    def open_as(role):
        token = token_for(admin, role, place)
        return open_client(token_access(server.address, token=token))

    with open_as(S) as client:
        backend = VaultKvBackend(client, mount, "oidc/es256", "es256")
        assert backend.health().usable
        assert backend.sign("es256", "1", "ES256", [b"x"])
        with pytest.raises(BackendDenied):
            backend.create("es256", "ES256")
    with open_as(R) as client:
        rotator = VaultKvBackend(client, mount, "oidc/es256", "es256")
        assert rotator.create("es256", "ES256").ref == "3"
        with pytest.raises(BackendDenied):
            rotator.destroy("es256", "2")
    with open_as(D) as client:
        destroyer = VaultKvBackend(client, mount, "oidc/es256", "es256")
        destroyer.destroy("es256", "2")
        assert [version.ref for version in destroyer.describe_versions("es256").versions] == [
            "2",
            "3",
        ]


def test_uris_name_places():
    assert find_place("transit://team/transit/oidc?vault=other") == VaultPlace(
        "transit", "other", "team/transit", "oidc"
    )
    assert find_place("kv://team%2Fkv/oidc/es256") == VaultPlace(
        "kv", "main", "team/kv", "oidc/es256"
    )
    assert find_place("sql://") is None
