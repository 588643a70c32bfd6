"""Traps of transit against which the backend guards, on a real server."""

import base64
import hashlib
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from keys.backend import TracedSignature
from keys.backends.vault.transit import TransitBackend
from keys.backends.vault.transit_engine import TransitEngine
from keys.errors import BackendBroken, BackendDenied, TokenRefusedError, VersionUnusable
from keys.jose.algorithms import get_algorithm
from keys.jose.jwk import load_public_key
from keys.jose.signatures import make_verifier
from support.received_events import ReceivedEvents
from support.source_tree import ROOT
from support.vault_parts import TransitKeys, open_client, token_access

POLICY = """
path "{mount}/sign/ring" {{
  capabilities = ["update"]
  required_parameters = ["key_version"]
}}
path "{mount}/keys/ring" {{ capabilities = ["read"] }}
"""


@pytest.fixture
def client(bao_mount):
    access = token_access(bao_mount.server.address, token=bao_mount.server.token)
    with open_client(access) as client:
        yield client


@pytest.fixture
def backend(client, bao_mount):
    return TransitBackend(client, bao_mount.mount, "ring", "ring")


def verifier_of(version, alg="ES256"):
    return make_verifier(load_public_key(version.jwk, alg), get_algorithm(alg))


def test_a_pss_salt_is_as_long_as_the_digest(backend, bao_mount):
    """Left alone, transit salts as long as fits, which the verifiers in use refuse."""
    version = backend.create("ring", "PS256")
    verify = verifier_of(version, "PS256")
    (signature,) = backend.sign("ring", "1", "PS256", [b"data"])
    verify(signature, b"data")
    digest = base64.b64encode(hashlib.sha256(b"data").digest()).decode()
    body = {"input": digest, "prehashed": True, "signature_algorithm": "pss"}
    left_alone = bao_mount.admin.call("POST", f"{bao_mount.mount}/sign/ring", body)
    signature = base64.b64decode(left_alone["data"]["signature"].split(":")[2])
    with pytest.raises(TokenRefusedError):
        verify(signature, b"data")


def test_rotations_in_between_never_change_who_signs(backend, bao_mount):
    """Signatures are pinned to a version, so a rotation in the same moment is no race."""
    version = backend.create("ring", "ES256")
    verify = verifier_of(version)
    done = threading.Event()

    def rotate():
        count = 0
        while not done.is_set():
            bao_mount.admin.rotate_key("ring", mount=bao_mount.mount)
            count += 1
        return count

    def sign(number):
        data = str(number).encode()
        (signature,) = backend.sign("ring", "1", "ES256", [data])
        verify(signature, data)

    with ThreadPoolExecutor(4) as pool:
        rotations = pool.submit(rotate)
        try:
            assert len([None for _ in map(sign, range(150))]) == 150
        finally:
            done.set()
        assert rotations.result() > 5


def test_the_policy_that_requires_a_version_permits_everything_we_send(bao_mount):
    """The algorithm is in the body: in the path it would need a further permission."""
    bao_mount.admin.create_key("ring", mount=bao_mount.mount)
    policy = f"server-{bao_mount.mount}"
    bao_mount.admin.write_policy(policy, POLICY.format(mount=bao_mount.mount))
    token = bao_mount.admin.create_token([policy])
    with open_client(token_access(bao_mount.server.address, token=token)) as client:
        backend = TransitBackend(client, bao_mount.mount, "ring", "ring")
        (version,) = backend.describe_versions("ring").versions
        (signature,) = backend.sign("ring", "1", "ES256", [b"data"])
        verifier_of(version)(signature, b"data")
        for path in (f"{bao_mount.mount}/sign/ring", f"{bao_mount.mount}/sign/ring/sha2-256"):
            with pytest.raises(BackendDenied):
                client.call("POST", path, {"input": "AAAA"})
        with pytest.raises(BackendDenied):
            backend.create("ring", "ES256")


FORKING = """
import os, sys
from keys.jose.algorithms import get_algorithm
from keys.backends.vault.transit import TransitBackend
from keys.jose.jwk import load_public_key
from keys.jose.signatures import make_verifier
from support.vault_parts import token_access
from keys.backends.vault.client import VaultClient

address, token, mount = sys.argv[1:]
client = VaultClient(token_access(address, token=token))
backend = TransitBackend(client, mount, "ring", "ring")
version = backend.create("ring", "ES256")
verify = make_verifier(load_public_key(version.jwk, "ES256"), get_algorithm("ES256"))
backend.sign("ring", "1", "ES256", [b"before"])
connects = []
sys.addaudithook(lambda event, _: connects.append(event) if event == "socket.connect" else None)
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    backend.sign("ring", "1", "ES256", [b"after"])
    os.write(writing, b"own" if connects else b"inherited")
else:
    print(f"the child's connection is {os.read(reading, 100).decode()}")
for number in range(100):
    data = f"{child}-{number}".encode()
    (signature,) = backend.sign("ring", "1", "ES256", [data])
    verify(signature, data)
if child == 0:
    os._exit(0)
print(f"status {os.waitpid(child, 0)[1]} connects {len(connects)}")
"""


def test_processes_do_not_share_a_connection_after_a_fork(bao_mount):
    """On a shared connection, two processes get each other's signatures."""
    arguments = (bao_mount.server.address, bao_mount.server.token, bao_mount.mount)
    run = subprocess.run(
        [sys.executable, "-c", FORKING, *arguments],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "connection is own" in run.stdout, run.stdout + run.stderr
    assert "status 0 connects 0" in run.stdout, run.stdout + run.stderr


def test_a_floor_for_decryption_hides_public_keys_and_that_is_no_removal(backend, bao_mount):
    first, second = backend.create("ring", "ES256"), backend.create("ring", "ES256")
    bao_mount.admin.configure_key("ring", mount=bao_mount.mount, min_decryption_version=2)
    view = backend.describe_versions("ring")
    assert view.versions == (second,)
    assert (view.sign_floor, view.verify_floor) == ("2", "2")
    with pytest.raises(VersionUnusable):
        backend.sign("ring", first.ref, "ES256", [b"data"])
    bao_mount.admin.configure_key("ring", mount=bao_mount.mount, min_decryption_version=1)
    assert backend.describe_versions("ring").versions == (first, second)


def test_a_floor_of_zero_stops_nobody_and_a_fence_does(backend, bao_mount):
    for _ in range(3):
        backend.create("ring", "ES256")
    assert bao_mount.admin.read_key("ring", mount=bao_mount.mount)["min_encryption_version"] == 0
    assert len(backend.sign("ring", "1", "ES256", [b"data"])) == 1
    backend.fence("ring", "2")
    with pytest.raises(VersionUnusable):
        backend.sign("ring", "1", "ES256", [b"data"])
    assert backend.describe_versions("ring").sign_floor == "2"


def test_a_fence_is_never_lowered(backend, bao_mount):
    for _ in range(3):
        backend.create("ring", "ES256")
    backend.fence("ring", "3")
    backend.fence("ring", "2")
    assert backend.describe_versions("ring").sign_floor == "3"
    assert bao_mount.admin.read_key("ring", mount=bao_mount.mount)["min_encryption_version"] == 3
    with pytest.raises(VersionUnusable):
        backend.fence("ring", "4")


def test_floors_that_are_equal_can_be_set(backend):
    for _ in range(3):
        backend.create("ring", "ES256")
    backend.destroy("ring", "3")
    view = backend.describe_versions("ring")
    assert (view.sign_floor, view.verify_floor, len(view.versions)) == ("3", "3", 1)


def test_a_rotation_names_the_version_that_it_made(backend, bao_mount, monkeypatch):
    """Between a rotation and a reading of the key, others may rotate too."""
    backend.create("ring", "ES256")
    rotate = TransitEngine.rotate

    def rotate_and_be_overtaken(engine):
        shown = rotate(engine)
        bao_mount.admin.rotate_key("ring", mount=bao_mount.mount)
        return shown

    monkeypatch.setattr(TransitEngine, "rotate", rotate_and_be_overtaken)
    made = backend.create("ring", "ES256")
    assert made.ref == "2"
    assert [version.ref for version in backend.describe_versions("ring").versions] == [
        "1",
        "2",
        "3",
    ]


def test_an_existing_key_of_another_type_is_not_taken_for_ours(backend, bao_mount):
    """Transit answers its creation with the key that is there, whatever its type."""
    bao_mount.admin.create_key("ring", "rsa-2048", mount=bao_mount.mount)
    with pytest.raises(BackendBroken, match="rsa-2048"):
        backend.create("ring", "ES256")
    assert bao_mount.admin.read_key("ring", mount=bao_mount.mount)["latest_version"] == 1
    with pytest.raises(VersionUnusable, match="rsa-2048"):
        backend.sign("ring", "1", "ES256", [b"data"])


def test_a_key_made_by_another_in_the_same_moment_is_not_taken_for_ours(
    backend, bao_mount, monkeypatch
):
    create = TransitEngine.create

    def create_too_late(engine, kind):
        bao_mount.admin.create_key("ring", "rsa-2048", mount=bao_mount.mount)
        return create(engine, kind)

    monkeypatch.setattr(TransitEngine, "create", create_too_late)
    with pytest.raises(BackendBroken):
        backend.create("ring", "ES256")


@pytest.mark.parametrize("leak", ["exportable", "allow_plaintext_backup"])
def test_a_key_that_may_leave_the_vault_is_refused(backend, client, bao_mount, leak):
    """Either can be switched on by anyone who may configure the key, and never off again."""
    backend.create("ring", "ES256")
    bao_mount.admin.configure_key("ring", mount=bao_mount.mount, **{leak: True})
    received = ReceivedEvents()
    listened = TransitBackend(client, bao_mount.mount, "ring", "ring", notify=received)
    with pytest.raises(BackendBroken, match=leak):
        listened.describe_versions("ring")
    assert received.alarms() == ["privilege.too_wide"]
    assert not backend.health().usable
    bao_mount.admin.configure_key("ring", mount=bao_mount.mount, **{leak: False})
    with pytest.raises(BackendBroken, match=leak):
        backend.create("ring", "ES256")
    knowing = TransitBackend(client, bao_mount.mount, "ring", "ring", allow_exportable=True)
    assert len(knowing.describe_versions("ring").versions) == 1


@pytest.mark.parametrize("kind", ["aes256-gcm96", "chacha20-poly1305"])
def test_a_key_that_does_not_sign_is_refused(backend, bao_mount, kind):
    bao_mount.admin.create_key("ring", kind, mount=bao_mount.mount)
    with pytest.raises(BackendBroken, match=kind):
        backend.describe_versions("ring")


def test_a_derived_key_is_refused(backend, bao_mount):
    body = {"type": "ed25519", "derived": True}
    bao_mount.admin.call("POST", f"{bao_mount.mount}/keys/ring", body)
    with pytest.raises(BackendBroken, match="derived"):
        backend.describe_versions("ring")


def test_a_soft_deleted_key_is_seen_and_does_not_sign(backend, bao_mount):
    backend.create("ring", "ES256")
    bao_mount.admin.soft_delete_key("ring", mount=bao_mount.mount)
    view = backend.describe_versions("ring")
    assert view.disabled
    assert len(view.versions) == 1
    assert "soft-deleted" in backend.health().detail
    with pytest.raises(VersionUnusable, match="soft-deleted"):
        backend.sign("ring", "1", "ES256", [b"data"])
    with pytest.raises(BackendDenied, match="soft-deleted"):
        backend.create("ring", "ES256")
    bao_mount.admin.restore_key("ring", mount=bao_mount.mount)
    assert not backend.describe_versions("ring").disabled
    assert len(backend.sign("ring", "1", "ES256", [b"data"])) == 1


def test_a_mount_that_is_not_there_is_no_empty_ring(client):
    """Both answer 404; taken for an empty ring, keys would be made at a wrong place."""
    backend = TransitBackend(client, "no-such-mount", "ring", "ring")
    with pytest.raises(BackendDenied, match="no such path"):
        backend.describe_versions("ring")
    with pytest.raises(BackendDenied, match="no such path"):
        backend.sign("ring", "1", "ES256", [b"data"])


def test_every_signature_names_the_call_that_made_it(backend):
    backend.create("ring", "ES256")
    together = backend.sign("ring", "1", "ES256", [b"one", b"two"])
    (alone,) = backend.sign("ring", "1", "ES256", [b"three"])
    assert all(isinstance(signature, TracedSignature) for signature in (*together, alone))
    assert len({signature.request_id for signature in together}) == 1
    assert alone.request_id not in {"", together[0].request_id}


@pytest.mark.parametrize("kind", ["rsa-3072", "rsa-4096"])
def test_larger_rsa_keys_that_were_made_in_the_vault_are_used(backend, bao_mount, kind):
    bao_mount.admin.create_key("ring", kind, mount=bao_mount.mount)
    (version,) = backend.describe_versions("ring").versions
    for alg in ("RS256", "PS256"):
        (signature,) = backend.sign("ring", "1", alg, [b"data"])
        verifier_of(version, alg)(signature, b"data")


def test_a_second_ring_of_the_session_is_another_key(client, bao_mount):
    keys = TransitKeys(client, bao_mount.mount)
    assert keys.create("one", "ES256").jwk != keys.create("two", "ES256").jwk
    assert keys.open("one").describe_versions("two").versions == ()
    with pytest.raises(BackendDenied):
        keys.open("one").create("two", "ES256")
