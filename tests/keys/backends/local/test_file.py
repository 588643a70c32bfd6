"""Keys in a file: the contract, one maker at a time, whole or not at all, nobody else's to read."""

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from textwrap import dedent

import pytest

from keys.backends.local.file import FileEncryptedKeyStorage
from keys.backends.registry import BackendContext
from keys.errors import BackendBroken, BackendDenied, BackendUnavailable, KeysError
from keys.jose.algorithms import get_algorithm
from keys.jose.jwk import load_public_key
from keys.jose.signatures import make_verifier
from keys.testing import KeyBackendContract
from support.clock import FakeClock
from support.opened_backends import open_backend

KEY_ENCRYPTION_KEY = bytes(range(32))
RING = "ring"


def context():
    return BackendContext(clock=FakeClock(), key_encryption_key=KEY_ENCRYPTION_KEY)


def open_at(path):
    return open_backend(f"file://{path}", context())


class TestFileBackend(KeyBackendContract):
    @pytest.fixture
    def backend(self, tmp_path):
        return open_at(tmp_path / "keys.json")


@pytest.fixture
def path(tmp_path):
    """A key file with two versions of one ring."""
    path = tmp_path / "keys.json"
    backend = open_at(path)
    backend.create(RING, "ES256")
    backend.create(RING, "ES256")
    return path


def test_another_process_signs_with_the_same_key(path):
    (signature,) = open_at(path).sign(RING, "2", "ES256", [b"data"])
    first, second = (version.jwk for version in open_at(path).describe_versions(RING).versions)
    verify = make_verifier(load_public_key(second, "ES256"), get_algorithm("ES256"))
    verify(signature, b"data")
    assert first != second


def test_a_relative_path_stays_the_file_that_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    backend = open_at("folder/keys.json")
    monkeypatch.chdir("/")
    backend.create(RING, "ES256")
    assert (tmp_path / "folder/keys.json").exists()


def test_the_file_is_for_one_account_and_holds_no_key_in_clear(path):
    """Case G85."""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.with_name("keys.json.lock").stat().st_mode) == 0o600
    assert {found.name for found in path.parent.iterdir()} == {"keys.json", "keys.json.lock"}
    for row in json.loads(path.read_bytes())["keys"]:
        assert set(row["public_jwk"]) == {"kty", "crv", "x", "y"}
        assert set(row) == {
            "ring", "version", "kid", "alg", "public_jwk", "created_at", "envelope",
        }  # fmt: skip


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o620, 0o602, 0o660])
def test_a_file_open_to_others_is_refused(path, mode):
    backend = open_at(path)
    path.chmod(mode)
    with pytest.raises(BackendDenied, match="chmod 600"):
        open_at(path)
    with pytest.raises(BackendDenied, match="chmod 600"):
        backend.sign(RING, "1", "ES256", [b"data"])
    assert not backend.health().usable


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(BackendUnavailable, match="Is a directory"):
        open_at(tmp_path / "folder")
    with pytest.raises(BackendDenied, match="not a regular file"):
        open_at("/dev/null")


def test_a_link_is_followed_and_left_in_place(path):
    link = path.with_name("link")
    link.symlink_to(path)
    open_at(link).create(RING, "ES256")
    assert link.is_symlink()
    assert len(open_at(path).describe_versions(RING).versions) == 3


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"format": 2, "keys": []}',
        b'{"format": 1}',
        b'{"format": 1, "keys": {}, "x": 1}garbage',
        b'{"format": 1, "keys": [1]}',
        b'{"format": 1, "keys": [{}]}',
        b"\xff",
        b'{"format": 1, "keys": [1], "keys": []}',
        b'{"format": 1, "keys": ' + b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_an_alarm(path, content):
    path.write_bytes(content)
    with pytest.raises(BackendBroken, match=r"damaged|unknown format"):
        open_at(path)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("ring", 1),
        ("version", "1"),
        ("version", True),
        ("kid", None),
        ("public_jwk", []),
        ("created_at", "yesterday"),
        ("created_at", "2030-01-01T00:00:00"),
        ("envelope", "*"),
        ("envelope", 1),
    ],
)
def test_a_damaged_row_is_an_alarm_that_shows_nothing_of_it(path, member, value):
    document = json.loads(path.read_bytes())
    document["keys"][0][member] = value
    path.write_text(json.dumps(document))
    with pytest.raises(BackendBroken) as caught:
        open_at(path)
    assert document["keys"][1]["envelope"] not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_broken_off_replacement_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()
    backend = open_at(path)

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BackendUnavailable, match="No space left"):
        backend.create(RING, "ES256")
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert {found.name for found in path.parent.iterdir()} == {"keys.json", "keys.json.lock"}
    assert backend.create(RING, "ES256").ref == "3"


def test_file_and_folder_are_on_the_disk_before_the_answer(path, monkeypatch):
    synced, fsync = [], os.fsync

    def note(descriptor):
        synced.append(stat.S_IFMT(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    open_at(path).create(RING, "ES256")
    assert synced == [stat.S_IFREG, stat.S_IFDIR]


MAKER = dedent(
    """\
    import sys
    from datetime import UTC, datetime
    from keys.backends.registry import BackendContext
    from keys.backends.local.file import open_backend

    context = BackendContext(clock=lambda: datetime.now(UTC), key_encryption_key=bytes(range(32)))
    backend = open_backend(sys.argv[1], context)
    for _ in range(int(sys.argv[2])):
        print(backend.create("ring", "ES256").ref, flush=True)
    """
)


def start_maker(path, count):
    command = [sys.executable, "-c", MAKER, f"file://{path}", str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def numbers_in(path):
    return [int(version.ref) for version in open_at(path).describe_versions(RING).versions]


def test_processes_at_once_never_share_a_number(tmp_path):
    path = tmp_path / "keys.json"
    makers = [start_maker(path, 10) for _ in range(3)]
    numbers = [int(ref) for maker in makers for ref in maker.communicate()[0].split()]
    assert [maker.returncode for maker in makers] == [0, 0, 0]
    assert sorted(numbers) == list(range(1, 31))
    assert numbers_in(path) == sorted(numbers)


def test_a_killed_maker_loses_no_key_and_holds_up_nobody(tmp_path):
    path, last = tmp_path / "keys.json", 0
    for _ in range(4):
        with start_maker(path, 1_000_000) as maker:
            for _ in range(8):
                last = int(maker.stdout.readline())
            maker.kill()
        numbers = numbers_in(path)
        assert last <= len(numbers)
        assert numbers == list(range(1, len(numbers) + 1))
    assert open_at(path).create(RING, "ES256").ref == str(len(numbers) + 1)
    assert {found.name for found in tmp_path.iterdir()} == {"keys.json", "keys.json.lock"}


def test_a_version_or_kid_that_is_taken_is_not_kept(path):
    storage = FileEncryptedKeyStorage(path)
    first, _second = storage.load(RING)
    assert not storage.add(first)
    assert not storage.add(replace(first, version=3))
    assert not storage.add(replace(first, kid="another"))
    assert len(storage.load(RING)) == 2


def test_rings_in_one_file_do_not_touch_each_other(path):
    backend = open_at(path)
    backend.create("other", "EdDSA")
    backend.destroy(RING, "2")
    assert [version.ref for version in backend.describe_versions(RING).versions] == ["2"]
    assert [version.ref for version in backend.describe_versions("other").versions] == ["1"]


@pytest.mark.parametrize(
    "uri", ["file:", "file://", "file:///", "file:x", "file:///x?y", "file:///x%20", "file:///x#y"]
)
def test_a_uri_that_names_no_file_is_refused(uri):
    with pytest.raises(KeysError, match="file:///path"):
        open_backend(uri, context())


def test_a_missing_folder_or_key_is_named_at_the_start(tmp_path):
    with pytest.raises(KeysError, match=r"folder of the key file .* does not exist"):
        open_at(tmp_path / "none/keys.json")
    with pytest.raises(KeysError, match="needs a key-encryption key"):
        open_backend(f"file://{tmp_path}/keys.json", BackendContext(clock=FakeClock()))


def test_a_folder_that_went_away_is_an_outage(path):
    backend = open_at(path)
    path.parent.rename(path.parent.with_name("elsewhere"))
    with pytest.raises(BackendUnavailable, match="No such file"):
        backend.create(RING, "ES256")
    path.parent.with_name("elsewhere").rename(path.parent)
    assert backend.create(RING, "ES256").ref == "3"
