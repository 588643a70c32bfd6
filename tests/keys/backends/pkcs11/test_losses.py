"""A token under several threads and processes, lost, locked, missing, or not even installed."""

import os
import signal
import subprocess
import sys
from itertools import count
from textwrap import dedent
from threading import Thread
from time import monotonic, sleep

import pkcs11
import pytest

from keys.backends.pkcs11 import module as pkcs11_module
from keys.backends.pkcs11.module import get_module
from keys.backends.pkcs11.uri import parse_uri
from keys.backends.registry import BackendContext
from keys.errors import BackendDenied, BackendUnavailable, KeysError, VersionUnusable
from keys.events import BackendAnswered, BackendFailed
from keys.jose.algorithms import get_algorithm
from keys.jose.jwk import load_public_key
from keys.jose.signatures import make_verifier
from support.clock import FakeClock
from support.opened_backends import open_backend
from support.received_events import ReceivedEvents

RING = "ring"
_labels = count()


@pytest.fixture
def token(softhsm):
    """A token without keys."""
    return softhsm.add_token(f"shared-{next(_labels)}")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def backend(token, clock):
    return open_backend(token.uri(), BackendContext(clock=clock))


MAKER = dedent(
    """\
    import sys
    from datetime import UTC, datetime
    from keys.backends.registry import BackendContext
    from keys.backends.pkcs11.opening import open_backend

    backend = open_backend(sys.argv[1], BackendContext(clock=lambda: datetime.now(UTC)))
    print(*(backend.create("ring", "ES256").ref for _ in range(5)))
    """
)


def test_processes_at_once_never_share_a_number(token, backend):
    command = [sys.executable, "-c", MAKER, token.uri()]
    makers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    numbers = [int(ref) for maker in makers for ref in maker.communicate()[0].split()]
    assert [maker.returncode for maker in makers] == [0, 0, 0]
    assert sorted(numbers) == list(range(1, 16))
    assert [int(version.ref) for version in backend.describe_versions(RING).versions] == sorted(
        numbers
    )


def test_threads_share_the_token(backend):
    version = backend.create(RING, "ES256")
    verify = make_verifier(load_public_key(version.jwk, "ES256"), get_algorithm("ES256"))
    wrong = []

    def sign(name):
        for number in range(50):
            data = f"{name} {number}".encode()
            try:
                verify(backend.sign(RING, "1", "ES256", [data])[0], data)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is wrong
                wrong.append(error)

    threads = [Thread(target=sign, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_a_fork_each_process_has_its_own_session(backend):
    version = backend.create(RING, "ES256")
    verify = make_verifier(load_public_key(version.jwk, "ES256"), get_algorithm("ES256"))
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            signal.alarm(10)  # whatever goes wrong, no child is left behind
            status = 1
            try:
                for number in range(30):
                    data = f"{os.getpid()} {number}".encode()
                    verify(backend.sign(RING, "1", "ES256", [data])[0], data)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    for number in range(30):
        data = f"parent {number}".encode()
        verify(backend.sign(RING, "1", "ES256", [data])[0], data)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    verify(backend.sign(RING, "1", "ES256", [b"after"])[0], b"after")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_lock_that_was_held_at_the_fork_does_not_hold_the_child(backend, token):
    backend.create(RING, "ES256")
    location, _ = parse_uri(token.uri())
    with get_module(location.module)._lock:  # noqa: SLF001 - as another thread would hold it
        child = os.fork()
        if child == 0:
            signal.alarm(10)  # whatever goes wrong, no child is left behind
            status = 1
            try:
                status = 1 - len(backend.sign(RING, "1", "ES256", [b"data"]))
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0


def test_a_session_that_was_lost_is_opened_again(backend, token):
    backend.create(RING, "ES256")
    pkcs11.lib(str(token.hsm.module)).reinitialize()
    assert len(backend.sign(RING, "1", "ES256", [b"data"])[0]) == 64
    pkcs11.lib(str(token.hsm.module)).finalize()
    assert len(backend.sign(RING, "1", "ES256", [b"data"])[0]) == 64


def until_usable(backend):
    deadline = monotonic() + 60
    while True:
        try:
            return backend.sign(RING, "1", "ES256", [b"data"])
        except BackendUnavailable:
            assert monotonic() < deadline
            sleep(0.05)


def test_a_token_that_was_away_is_used_again(token, clock):
    received = ReceivedEvents()
    backend = open_backend(token.uri(), BackendContext(clock=clock, notify=received))
    backend.create(RING, "ES256")
    elsewhere = token.hsm.store.with_name("unplugged")
    token.hsm.store.rename(elsewhere)
    token.hsm.store.mkdir()
    # The module still shows the token from memory; this makes it look.
    pkcs11.lib(str(token.hsm.module)).reinitialize()
    for _ in range(3):
        with pytest.raises(BackendUnavailable) as caught:
            backend.sign(RING, "1", "ES256", [b"data"])
    assert caught.value.retry_after == 1
    assert not backend.health().usable
    token.hsm.store.rmdir()
    elsewhere.rename(token.hsm.store)
    assert len(until_usable(backend)[0]) == 64
    kinds = [type(event) for event in received.all]
    assert kinds == [BackendAnswered, BackendFailed, BackendAnswered]
    assert {event.uri for event in received.all} == {token.uri()}
    assert received.of(BackendFailed)[0].reason


def test_a_key_that_somebody_destroyed_is_unusable(backend, token):
    backend.create(RING, "ES256")
    backend.create(RING, "ES256")
    backend.sign(RING, "1", "ES256", [b"data"])
    program = (
        f"import pkcs11\nsession = pkcs11.lib({str(token.hsm.module)!r})"
        f".get_token(token_label={token.label!r}).open(rw=True, user_pin={token.pin!r})\n"
        f"session.get_key(label='{RING}-1', object_class=pkcs11.ObjectClass.PRIVATE_KEY).destroy()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(VersionUnusable):
        backend.sign(RING, "1", "ES256", [b"data"])
    assert backend.sign(RING, "2", "ES256", [b"data"])


def test_a_wrong_pin_is_tried_once(token, clock, monkeypatch):
    backend = open_backend(token.uri(), BackendContext(clock=clock))
    token.pin_file.write_text("9999\n")
    with pytest.raises(BackendDenied, match="PinIncorrect"):
        backend.describe_versions(RING)
    tried = []
    monkeypatch.setattr(pkcs11_module, "_open_session", lambda *_: tried.append(1))
    for _ in range(20):
        with pytest.raises(BackendDenied, match="PinIncorrect"):
            backend.sign(RING, "1", "ES256", [b"data"])
    assert not backend.health().usable
    assert "9999" not in backend.health().detail
    assert tried == []
    monkeypatch.undo()
    token.pin_file.write_text(token.pin)
    assert backend.create(RING, "ES256").ref == "1"


@pytest.mark.parametrize(
    ("content", "mode", "sentence"),
    [
        (b"1234", 0o604, "open to every account"),
        (b"", 0o600, "is empty"),
        (b"\n", 0o600, "is empty"),
        (b"\xff", 0o600, "not UTF-8"),
        (b"1" * 2000, 0o600, "not a small regular file"),
        (None, 0o600, "No such file"),
    ],
)
def test_an_unsound_pin_file_is_named_at_the_start(token, content, mode, sentence):
    if content is None:
        token.pin_file.unlink()
    else:
        token.pin_file.write_bytes(content)
        token.pin_file.chmod(mode)
    with pytest.raises(KeysError, match=sentence):
        open_backend(token.uri(), BackendContext(clock=FakeClock()))


def test_a_missing_module_is_named_at_the_start(token, tmp_path):
    uri = token.uri().replace(str(token.hsm.module), str(tmp_path / "none.so"))
    with pytest.raises(KeysError, match=r"no PKCS#11 module .*none\.so"):
        open_backend(uri, BackendContext(clock=FakeClock()))


def test_a_module_that_is_none_is_an_outage_with_its_reason(token, tmp_path):
    module = tmp_path / "none.so"
    module.write_bytes(b"no library")
    uri = token.uri().replace(str(token.hsm.module), str(module))
    backend = open_backend(uri, BackendContext(clock=FakeClock()))
    with pytest.raises(BackendUnavailable, match=r"invalid ELF header|file too short"):
        backend.describe_versions(RING)


def test_a_module_under_two_names_is_one_module(token, tmp_path):
    link = tmp_path / "link.so"
    link.symlink_to(token.hsm.module)
    context = BackendContext(clock=FakeClock())
    version = open_backend(token.uri(), context).create(RING, "ES256")
    other = open_backend(token.uri().replace(str(token.hsm.module), str(link)), context)
    assert other.describe_versions(RING).versions == (version,)


def test_a_missing_library_is_named_with_the_lock_file(token, monkeypatch):
    kept = {"keys.backends.pkcs11.opening", "keys.backends.pkcs11.uri"}
    for name in [name for name in sys.modules if name.startswith("keys.backends.pkcs11.")]:
        if name not in kept:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(KeysError, match=r"install requirements/backends\.txt"):
        open_backend(token.uri(), BackendContext(clock=FakeClock()))


def test_a_token_that_is_not_there_is_an_outage(token):
    uri = token.uri().replace(f"token={token.label}", "token=nobody")
    backend = open_backend(uri, BackendContext(clock=FakeClock()))
    with pytest.raises(BackendUnavailable, match="NoSuchToken"):
        backend.describe_versions(RING)


def test_two_tokens_of_one_name_are_told_apart_by_their_serial_number(softhsm):
    token = softhsm.add_token("twins")
    twin = softhsm.add_token("twins")
    backend = open_backend(token.uri(), BackendContext(clock=FakeClock()))
    with pytest.raises(BackendDenied, match="MultipleTokensReturned"):
        backend.describe_versions(RING)
    library = pkcs11.lib(str(softhsm.module))
    serials = [found.serial.decode() for found in library.get_tokens(token_label="twins")]
    assert len(set(serials)) == 2
    for serial in serials:
        uri = twin.uri().replace("token=twins", f"token=twins;serial={serial}")
        backend = open_backend(uri, BackendContext(clock=FakeClock()))
        assert backend.create(RING, "ES256").ref == "1"
