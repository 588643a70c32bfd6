"""Keys on a PKCS#11 token: the contract on SoftHSM, protection, makers at once, losses, forks."""

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import count
from textwrap import dedent
from threading import Thread
from time import monotonic, sleep

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
from pkcs11.util.ec import encode_named_curve_parameters

from keys.algorithms import get_algorithm
from keys.backends.pkcs11_backend import UNFINISHED_LIFETIME
from keys.backends.pkcs11_module import get_module
from keys.backends.pkcs11_uri import parse_uri
from keys.backends.registry import BackendContext, open_backend
from keys.errors import BackendBroken, BackendDenied, BackendUnavailable, KeysError, VersionUnusable
from keys.jose import load_public_key
from keys.observer import SilentObserver
from keys.signatures import make_verifier
from keys.testing import KeyBackendContract
from support.clock import FakeClock

RING = "ring"
_labels = count()


class Listener(SilentObserver):
    """An observer that remembers whether the token was there."""

    def __init__(self):
        self.heard = []

    def backend_up(self, uri):
        self.heard.append(("up", uri))

    def backend_down(self, uri, reason):
        assert reason
        self.heard.append(("down", uri))


@pytest.fixture
def token(softhsm):
    """A token without keys."""
    return softhsm.add_token(f"token-{next(_labels)}")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def backend(token, clock):
    return open_backend(token.uri(), BackendContext(clock=clock))


class TestPkcs11Backend(KeyBackendContract):
    @pytest.fixture
    def backend(self, token):
        return open_backend(token.uri(), BackendContext(clock=FakeClock()))


class TestPkcs11BackendWithEdwardsKeys(KeyBackendContract):
    alg = "EdDSA"

    @pytest.fixture
    def backend(self, token):
        return open_backend(token.uri(), BackendContext(clock=FakeClock()))


def on_token(token, work):
    """Do something on the token as somebody else who has the PIN."""
    location, _ = parse_uri(token.uri())
    return get_module(location.module).run(location, lambda opened: work(opened.session))


def make_foreign_key(token, label, *, key_id=b"foreign", private=(), public=()):
    """Make a key pair as an operator's tool would; without a public half if that is None."""

    def work(session):
        made, _ = session.generate_keypair(
            KeyType.EC,
            store=True,
            id=key_id,
            label=label,
            mechanism=Mechanism.EC_KEY_PAIR_GEN,
            public_template={Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
            | dict(public or ()),
            private_template={Attribute.EXTRACTABLE: False} | dict(private),
        )
        if public is None:
            made.destroy()

    on_token(token, work)


def labels_on(token):
    def work(session):
        private = {Attribute.CLASS: ObjectClass.PRIVATE_KEY}
        return sorted(key[Attribute.LABEL] for key in list(session.get_objects(private)))

    return on_token(token, work)


def test_it_offers_every_algorithm_that_the_token_can_do(backend):
    backend.health()
    assert backend.caps.algs == {"ES256", "ES384", "ES512", "RS256", "PS256", "EdDSA"}
    assert not backend.caps.in_process
    assert not backend.caps.can_fence


def test_a_private_key_never_leaves_the_token(backend, token):
    for alg in ("ES256", "RS256", "EdDSA"):
        backend.create(alg.lower(), alg)

    def work(session):
        for key in list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})):
            assert key[Attribute.SENSITIVE]
            assert key[Attribute.ALWAYS_SENSITIVE]
            assert not key[Attribute.EXTRACTABLE]
            assert key[Attribute.NEVER_EXTRACTABLE]
            for secret in (Attribute.VALUE, Attribute.PRIVATE_EXPONENT):
                with pytest.raises(pkcs11.PKCS11Error):
                    key[secret]
            for power in (Attribute.DECRYPT, Attribute.UNWRAP, Attribute.DERIVE):
                assert not key[power]

    on_token(token, work)


@pytest.mark.parametrize(
    ("private", "sentence"),
    [
        ({Attribute.EXTRACTABLE: True}, "is extractable"),
        ({Attribute.SENSITIVE: False}, "is not sensitive"),
        ({Attribute.SIGN: False}, "is not for signing"),
    ],
)
def test_a_key_that_could_leave_the_token_is_not_adopted(backend, token, caplog, private, sentence):
    first = backend.create(RING, "ES256")
    make_foreign_key(token, f"{RING}-2", private=private)
    assert backend.view(RING).versions == (first,)
    assert sentence in caplog.text
    with pytest.raises(BackendBroken, match=sentence):
        backend.sign(RING, "2", "ES256", [b"data"])
    assert backend.create(RING, "ES256").ref == "3"


def test_a_key_that_was_extractable_once_is_not_adopted(backend, token, caplog):
    make_foreign_key(
        token, f"{RING}-1", private={Attribute.EXTRACTABLE: True, Attribute.SENSITIVE: False}
    )

    def close(session):
        (key,) = list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}))
        key[Attribute.EXTRACTABLE] = False
        key[Attribute.SENSITIVE] = True

    on_token(token, close)
    assert backend.view(RING).versions == ()
    assert "was not always sensitive" in caplog.text


def test_a_key_that_an_operator_made_on_the_token_is_adopted(backend, token, clock):
    make_foreign_key(token, f"{RING}-1")
    (version,) = backend.view(RING).versions
    assert (version.ref, version.created_at) == ("1", clock())
    clock.advance(60)
    assert backend.view(RING).versions == (version,)
    (signature,) = backend.sign(RING, "1", "ES256", [b"data"])
    public = load_public_key(version.jwk, "ES256")
    make_verifier(public, get_algorithm("ES256"))(signature, b"data")
    assert backend.create(RING, "ES256").ref == "2"


def test_the_day_that_an_operator_gave_a_key_is_its_beginning(backend, token, clock):
    make_foreign_key(token, f"{RING}-1", public={Attribute.START_DATE: clock()})
    (version,) = backend.view(RING).versions
    assert version.created_at == clock().replace(hour=0, minute=0, second=0, microsecond=0)


def test_two_keys_under_one_label_are_an_alarm(backend, token, caplog):
    make_foreign_key(token, f"{RING}-1", key_id=b"a")
    make_foreign_key(token, f"{RING}-1", key_id=b"b")
    with pytest.raises(BackendBroken, match="2 private keys"):
        backend.sign(RING, "1", "ES256", [b"data"])
    assert backend.view(RING).versions == ()
    assert "2 private keys" in caplog.text


def test_a_private_key_without_its_public_half_is_not_adopted(backend, token, caplog):
    make_foreign_key(token, f"{RING}-1", public=None)
    second = backend.create(RING, "ES256")
    view = backend.view(RING)
    assert view.versions == (second,)
    assert "0 public keys" in caplog.text
    # A floor at 2 would be read as the order to revoke 1.
    assert (view.sign_floor, view.verify_floor) == ("1", "1")


@pytest.mark.parametrize("label", [f"{RING}-01", f"{RING}-0", f"{RING}-x", f"{RING}1", "xring-1"])
def test_other_labels_are_other_keys(backend, token, label):
    make_foreign_key(token, label)
    assert backend.view(RING).versions == ()


def test_rings_whose_names_begin_alike_are_apart(backend):
    backend.create("a", "ES256")
    backend.create("a-1", "ES256")
    assert [version.ref for version in backend.view("a").versions] == ["1"]
    assert [version.ref for version in backend.view("a-1").versions] == ["1"]
    assert backend.view("a").versions != backend.view("a-1").versions


def test_a_uri_with_a_label_is_for_one_ring(token):
    context = BackendContext(clock=FakeClock(), ring=RING)
    backend = open_backend(token.uri("oidc keys"), context)
    assert backend.create(RING, "ES256").ref == "1"
    assert labels_on(token) == ["oidc keys-1"]
    assert backend.view("another").versions == ()
    with pytest.raises(VersionUnusable):
        backend.sign("another", "1", "ES256", [b"data"])
    with pytest.raises(BackendDenied, match="not for 'another'"):
        backend.create("another", "ES256")
    with pytest.raises(VersionUnusable):
        backend.destroy("another", "1")
    with pytest.raises(KeysError, match="for one ring"):
        open_backend(token.uri("oidc keys"), replace(context, ring=""))


MAKER = dedent(
    """\
    import sys
    from datetime import UTC, datetime
    from keys.backends.registry import BackendContext
    from keys.backends.pkcs11 import open_backend

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
    assert [int(version.ref) for version in backend.view(RING).versions] == sorted(numbers)


def test_what_a_broken_off_maker_left_is_deleted_in_the_end(token, backend, clock, monkeypatch):
    def die(*_arguments, **_named):
        raise KeyboardInterrupt

    monkeypatch.setattr("keys.backends.pkcs11_backend.take_number", die)
    with suppress(KeyboardInterrupt):
        backend.create(RING, "ES256")
    monkeypatch.undo()
    clock.advance(UNFINISHED_LIFETIME / timedelta(seconds=1))
    assert backend.create(RING, "ES256").ref == "1"
    assert labels_on(token) == [f"{RING}-1", f"{RING}~draft"]
    clock.advance(1)
    assert backend.create(RING, "ES256").ref == "2"
    assert labels_on(token) == [f"{RING}-1", f"{RING}-2"]


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


def test_after_a_fork_each_process_has_its_own_session(backend):
    version = backend.create(RING, "ES256")
    verify = make_verifier(load_public_key(version.jwk, "ES256"), get_algorithm("ES256"))
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
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


def test_a_lock_that_was_held_at_the_fork_does_not_hold_the_child(backend, token):
    backend.create(RING, "ES256")
    location, _ = parse_uri(token.uri())
    with get_module(location.module)._lock:  # noqa: SLF001 - as another thread would hold it
        child = os.fork()
        if child == 0:
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
    deadline = monotonic() + 10
    while True:
        try:
            return backend.sign(RING, "1", "ES256", [b"data"])
        except BackendUnavailable:
            assert monotonic() < deadline
            sleep(0.05)


def test_a_token_that_was_away_is_used_again(token, clock):
    listener = Listener()
    backend = open_backend(token.uri(), BackendContext(clock=clock, observer=listener))
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
    assert listener.heard == [(what, token.uri()) for what in ("up", "down", "up")]


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


def test_a_wrong_pin_is_tried_once(token, clock):
    backend = open_backend(token.uri(), BackendContext(clock=clock))
    token.pin_file.write_text("9999\n")
    with pytest.raises(BackendDenied, match="PinIncorrect"):
        backend.view(RING)
    opened = count_openings(token)
    for _ in range(20):
        with pytest.raises(BackendDenied, match="PinIncorrect"):
            backend.sign(RING, "1", "ES256", [b"data"])
    assert not backend.health().usable
    assert "9999" not in backend.health().detail
    assert opened() == 0
    token.pin_file.write_text(token.pin)
    assert backend.create(RING, "ES256").ref == "1"


def count_openings(token):
    """Count the log-ins that a token sees from now on."""
    seen = []
    module = get_module(token.hsm.module)
    before = module._log_in.__globals__["_open_session"]  # noqa: SLF001 - the door to the token

    def counting(*arguments):
        seen.append(1)
        return before(*arguments)

    module._log_in.__globals__["_open_session"] = counting  # noqa: SLF001

    def finish():
        module._log_in.__globals__["_open_session"] = before  # noqa: SLF001
        return len(seen)

    return finish


@pytest.mark.parametrize(
    ("content", "mode", "sentence"),
    [
        (b"1234", 0o604, "open to every account"),
        (b"", 0o600, "is empty"),
        (b"\n", 0o600, "is empty"),
        (b"\xff", 0o600, "not UTF-8"),
        (b"1" * 2000, 0o600, "no short file"),
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
        backend.view(RING)


def test_a_missing_library_is_named_with_the_extra(token, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("keys.backends.pkcs11_")]:
        if name != "keys.backends.pkcs11_uri":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(KeysError, match=r"pip install 'authz-server\[pkcs11\]'"):
        open_backend(token.uri(), BackendContext(clock=FakeClock()))


def test_a_token_that_is_not_there_is_an_outage(token):
    uri = token.uri().replace(f"token={token.label}", "token=nobody")
    backend = open_backend(uri, BackendContext(clock=FakeClock()))
    with pytest.raises(BackendUnavailable, match="NoSuchToken"):
        backend.view(RING)


def test_two_tokens_of_one_name_are_told_apart_by_their_serial_number(softhsm):
    token = softhsm.add_token("twins")
    twin = softhsm.add_token("twins")
    backend = open_backend(token.uri(), BackendContext(clock=FakeClock()))
    with pytest.raises(BackendDenied, match="MultipleTokensReturned"):
        backend.view(RING)
    library = pkcs11.lib(str(softhsm.module))
    serials = [found.serial.decode() for found in library.get_tokens(token_label="twins")]
    for serial in serials:
        uri = twin.uri().replace("token=twins", f"token=twins;serial={serial}")
        backend = open_backend(uri, BackendContext(clock=FakeClock()))
        assert backend.create(RING, "ES256").ref == "1"
