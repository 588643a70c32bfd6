"""Private keys in a KV engine, on a real OpenBao: contract, makers at once, deletion, rights."""

import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keys.backends.registry import BackendContext
from keys.backends.vault.kv import VaultKvBackend
from keys.errors import BackendBroken, BackendDenied, KeysError, VersionUnusable
from keys.jose.jwk import public_jwk, thumbprint
from keys.testing import KeyBackendContract
from support.clock import FakeClock
from support.kv_engines import add_kv_engine
from support.opened_backends import open_backend
from support.vault_parts import open_client, token_access

RING = "ring"


@pytest.fixture
def admin(openbao):
    return openbao.admin()


@pytest.fixture
def mount(admin):
    """An empty KV engine, gone after the test."""
    mount = add_kv_engine(admin)
    yield mount
    admin.disable_engine(mount)


@pytest.fixture
def client(openbao):
    with open_client(token_access(openbao.address, token=openbao.token)) as client:
        yield client


@pytest.fixture
def backend(client, mount):
    return open_folder(client, mount)


def open_folder(client, mount, *, ring=RING, experimental=False):
    return VaultKvBackend(client, mount, f"authz/{ring}", ring, experimental=experimental)


class KvFolders:
    """One backend for each ring's own folder, as a program has them, seen as one backend."""

    scheme = VaultKvBackend.scheme
    caps = VaultKvBackend.caps

    def __init__(self, client, mount):
        self._session = client
        self._mount = mount
        self._opened = {}

    def open(self, ring):
        made = open_folder(self._session, self._mount, ring=ring)
        return self._opened.setdefault(ring, made)

    def describe_versions(self, ring):
        return self.open(ring).describe_versions(ring)

    def sign(self, ring, ref, alg, inputs):
        return self.open(ring).sign(ring, ref, alg, inputs)

    def create(self, ring, alg):
        return self.open(ring).create(ring, alg)

    def destroy(self, ring, verify_floor):
        self.open(ring).destroy(ring, verify_floor)

    def forget(self, ring, ref):
        return self.open(ring).forget(ring, ref)

    def health(self):
        return self.open("contract-ring").health()


class TestVaultKvBackend(KeyBackendContract):
    @pytest.fixture
    def backend(self, client, mount):
        return KvFolders(client, mount)


def write(admin, mount, number, **members):
    """Write a secret as an operator would."""
    body = {"data": members, "options": {}}
    admin.call("POST", f"{mount}/data/authz/{RING}/{number}", body)


def pem_of(private_key):
    return private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_a_version_is_a_secret_with_its_key_and_algorithm(backend, admin, mount):
    version = backend.create(RING, "ES256")
    data = admin.call("GET", f"{mount}/data/authz/{RING}/1")["data"]
    assert set(data["data"]) == {"alg", "private_key"}
    assert data["data"]["alg"] == "ES256"
    assert data["data"]["private_key"].startswith("-----BEGIN PRIVATE KEY-----\n")
    assert data["metadata"]["version"] == 1
    assert data["metadata"]["created_time"].startswith(version.created_at.isoformat()[:19])


def test_another_process_signs_with_the_same_key(backend, client, mount):
    version = backend.create(RING, "ES256")
    other = open_folder(client, mount)
    assert other.describe_versions(RING).versions == (version,)
    assert len(other.sign(RING, "1", "ES256", [b"data"])[0]) == 64


def test_it_serves_its_own_ring_only(backend):
    backend.create(RING, "ES256")
    assert backend.describe_versions("another").versions == ()
    with pytest.raises(VersionUnusable):
        backend.sign("another", "1", "ES256", [b"data"])
    with pytest.raises(BackendDenied, match="not of the ring"):
        backend.create("another", "ES256")
    with pytest.raises(VersionUnusable):
        backend.destroy("another", "1")


def test_twenty_makers_get_twenty_numbers(openbao, mount):
    access = token_access(openbao.address, token=openbao.token)

    def make(_):
        with open_client(access) as client:
            return open_folder(client, mount).create(RING, "ES256")

    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(make, range(20)))
    assert sorted(int(version.ref) for version in made) == list(range(1, 21))
    assert len({thumbprint(version.jwk) for version in made}) == 20
    with open_client(access) as client:
        shown = open_folder(client, mount).describe_versions(RING).versions
    assert shown == tuple(sorted(made, key=lambda version: int(version.ref)))


def test_it_works_where_every_writing_has_to_compare(backend, admin, mount):
    admin.call("POST", f"{mount}/config", {"cas_required": True})
    assert backend.create(RING, "ES256").ref == "1"
    assert backend.create(RING, "ES256").ref == "2"


def test_what_is_written_over_a_version_is_not_looked_at(backend, admin, mount, client):
    first = backend.create(RING, "ES256")
    write(admin, mount, 1, alg="ES256", private_key=pem_of(ec.generate_private_key(ec.SECP256R1())))
    assert open_folder(client, mount).describe_versions(RING).versions == (first,)


def test_a_key_that_an_operator_wrote_is_adopted(backend, admin, mount):
    private = ec.generate_private_key(ec.SECP256R1())
    write(admin, mount, 1, alg="ES256", private_key=pem_of(private))
    (version,) = backend.describe_versions(RING).versions
    assert version.jwk == public_jwk(private)
    assert len(backend.sign(RING, "1", "ES256", [b"data"])[0]) == 64
    assert backend.create(RING, "ES256").ref == "2"


SOUND_PEM = pem_of(ec.generate_private_key(ec.SECP256R1()))


@pytest.mark.parametrize(
    "members",
    [
        {"alg": "ES256"},
        {"private_key": SOUND_PEM},
        {"alg": "ES256", "private_key": ""},
        {"alg": "ES256", "private_key": SOUND_PEM.replace("M", "N")},
        {"alg": "ES256", "private_key": 31337},
        {"alg": "RS256", "private_key": SOUND_PEM},
        {"alg": "none", "private_key": SOUND_PEM},
        {"alg": "EdDSA", "private_key": pem_of(ed448.Ed448PrivateKey.generate())},
    ],
)
def test_an_unsound_secret_is_logged_without_a_word_of_it(backend, admin, mount, caplog, members):
    """Case G85."""
    backend.create(RING, "ES256")
    write(admin, mount, 2, **members)
    third = backend.create(RING, "ES256")
    view = backend.describe_versions(RING)
    assert [version.ref for version in view.versions] == ["1", third.ref]
    assert "a key is not adopted" in caplog.text
    with pytest.raises(BackendBroken) as caught:
        backend.sign(RING, "2", "ES256", [b"data"])
    said, pem = caplog.text + str(caught.value), str(members.get("private_key", ""))
    assert not any(line in said for line in pem.splitlines() if line)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_soft_deleted_version_is_not_loaded_any_more(backend, admin, mount, client):
    first, second = (backend.create(RING, "ES256") for _ in range(2))
    backend.sign(RING, "1", "ES256", [b"data"])
    admin.call("DELETE", f"{mount}/data/authz/{RING}/1")
    view = backend.describe_versions(RING)
    assert (view.versions, view.disabled) == ((second,), True)
    assert (view.sign_floor, view.verify_floor) == (None, None)
    assert backend.sign(RING, "1", "ES256", [b"data"])
    with pytest.raises(VersionUnusable, match="soft-deleted"):
        open_folder(client, mount).sign(RING, "1", "ES256", [b"data"])
    assert backend.create(RING, "ES256").ref == "3"
    admin.call("POST", f"{mount}/undelete/authz/{RING}/1", {"versions": [1]})
    view = backend.describe_versions(RING)
    assert (view.versions[0], view.disabled) == (first, False)


def test_nothing_of_a_destroyed_version_is_left(backend, admin, mount):
    for _ in range(3):
        backend.create(RING, "ES256")
    backend.destroy(RING, "3")
    listed = admin.call("LIST", f"{mount}/metadata/authz/{RING}")["data"]["keys"]
    assert listed == ["3"]
    for kind in ("data", "metadata"):
        with pytest.raises(Exception, match="None"):
            admin.call("GET", f"{mount}/{kind}/authz/{RING}/1")


def test_a_number_that_only_metadata_holds_is_taken(backend, admin, mount):
    admin.call("POST", f"{mount}/metadata/authz/{RING}/1", {"cas_required": True})
    assert backend.describe_versions(RING).versions == ()
    assert backend.create(RING, "ES256").ref == "2"


def test_other_things_in_the_folder_are_left_alone(backend, admin, mount):
    for name in ("notes", "01", "1/deeper"):
        write(admin, mount, name, text="x")
    assert backend.describe_versions(RING).versions == ()
    assert backend.create(RING, "ES256").ref == "1"


def test_an_engine_that_compares_nothing_is_refused(client, admin):
    mount = f"kv1-{secrets.token_hex(4)}"
    admin.client.sys.enable_secrets_engine("kv", path=mount, options={"version": "1"})
    try:
        with pytest.raises(BackendDenied, match="not a KV engine of version 2"):
            open_folder(client, mount).create(RING, "ES256")
        with pytest.raises(Exception, match="None"):
            admin.call("LIST", f"{mount}/")
    finally:
        admin.disable_engine(mount)


def test_a_mount_that_is_not_there_is_no_empty_folder(client):
    backend = open_folder(client, "nowhere")
    for attempt in (
        lambda: backend.describe_versions(RING),
        lambda: backend.create(RING, "ES256"),
        lambda: backend.sign(RING, "1", "ES256", [b"data"]),
    ):
        with pytest.raises(BackendDenied):
            attempt()
    assert not backend.health().usable


@pytest.fixture
def as_identity(openbao, admin, mount):
    """Open the folder with no other rights than those given."""
    opened = []

    def open_it(**capabilities):
        name = f"kv-{secrets.token_hex(4)}"
        rules = {
            "data": f"{mount}/data/authz/{RING}/*",
            "metadata": f"{mount}/metadata/authz/{RING}/*",
            "folder": f"{mount}/metadata/authz/{RING}",
        }
        admin.write_policy(
            name,
            "\n".join(
                f'path "{rules[place]}" {{ capabilities = {json.dumps(given)} }}'
                for place, given in capabilities.items()
            ),
        )
        access = token_access(openbao.address, token=admin.create_token([name]))
        context = open_client(access)
        opened.append(context)
        return open_folder(context.__enter__(), mount)

    yield open_it
    for context in opened:
        context.__exit__(None, None, None)


def test_a_server_needs_to_read_and_list(backend, as_identity):
    first, _second = (backend.create(RING, "ES256") for _ in range(2))
    server = as_identity(data=["read"], folder=["list"])
    assert server.describe_versions(RING).versions[0] == first
    assert server.sign(RING, "1", "ES256", [b"data"])
    assert server.health().usable
    with pytest.raises(BackendDenied):
        server.create(RING, "ES256")
    with pytest.raises(BackendDenied):
        server.destroy(RING, "2")


def test_a_rotator_needs_to_create_and_never_to_update(backend, as_identity):
    backend.create(RING, "ES256")
    rotator = as_identity(data=["create", "read"], folder=["list"])
    assert rotator.create(RING, "ES256").ref == "2"
    assert len(rotator.describe_versions(RING).versions) == 2
    with pytest.raises(BackendDenied):
        rotator.destroy(RING, "2")


def test_a_destroyer_needs_to_delete_metadata(backend, as_identity):
    for _ in range(2):
        backend.create(RING, "ES256")
    destroyer = as_identity(metadata=["delete"], folder=["list"])
    destroyer.destroy(RING, "2")
    assert [version.ref for version in backend.describe_versions(RING).versions] == ["2"]


def test_it_is_opened_by_its_uri(openbao, mount):
    vaults = {
        name: token_access(openbao.address, token=openbao.token) for name in ("main", "spare")
    }
    context = BackendContext(clock=FakeClock(), ring=RING, vaults=vaults)
    backend = open_backend(f"kv://{mount}/authz/{RING}", context)
    version = backend.create(RING, "ES256")
    spare = open_backend(f"kv://{mount}/authz/{RING}?vault=spare", context)
    assert spare.describe_versions(RING).versions == (version,)
    unnamed = open_backend(f"kv://{mount}/authz/{RING}", replace(context, ring=""))
    assert unnamed.describe_versions(RING).versions == (version,)
    with pytest.raises(KeysError, match="no Vault is called 'other'"):
        open_backend(f"kv://{mount}/authz/{RING}?vault=other", context)
    with pytest.raises(BackendDenied, match="experimental"):
        backend.create(RING, "ML-DSA-44")
    experimental = open_backend(f"kv://{mount}/authz/{RING}", replace(context, experimental=True))
    assert experimental.create(RING, "ML-DSA-44").ref == "2"
    assert len(experimental.sign(RING, "2", "ML-DSA-44", [b"data"])[0]) == 2420


def test_a_mount_with_a_slash(client, admin):
    mount = add_kv_engine(admin, f"folder/kv-{secrets.token_hex(4)}")
    try:
        assert open_folder(client, mount).create(RING, "ES256").ref == "1"
    finally:
        admin.disable_engine(mount)


@pytest.mark.parametrize(
    "uri",
    [
        "kv://",
        "kv:///path",
        "kv://mount",
        "kv://mount/",
        "kv://mount/../x",
        "kv://mount/a//b",
        "kv://mount/a b",
        "kv://mount/a#b",
        "kv://mount/a%2Fb",
        "kv://user@mount/a",
        "kv://mount/a?other=1",
        "kv:mount/a",
    ],
)
def test_a_uri_that_names_no_folder_is_refused(uri):
    with pytest.raises(KeysError, match="kv://MOUNT/PATH"):
        open_backend(uri, BackendContext(clock=FakeClock()))


def test_no_private_key_is_printed(backend):
    """Case G85."""
    backend.create(RING, "ES256")
    backend.sign(RING, "1", "ES256", [b"data"])
    shown = repr(backend) + repr(vars(backend)) + repr(backend._engine.read(1))  # noqa: SLF001
    assert "BEGIN" not in shown
    assert "private_key=" not in shown
