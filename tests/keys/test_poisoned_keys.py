"""A private key that a backend read wrongly once: forgotten at the mismatch, and read again."""

import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from keys.backends.local.file import FileBackend, FileEncryptedKeyStorage
from keys.backends.local.sql import LocalBackend
from keys.backends.registry import BackendContext
from keys.backends.vault.kv import VaultKvBackend
from keys.backends.vault.transit import TransitBackend
from keys.errors import BackendBroken, VersionUnusable
from keys.events import SignatureDiscarded
from keys.memory import MemoryEncryptedKeyStorage
from keys.ring import KeyRings
from keys.signer import FORGET_INTERVAL_SECONDS
from support.kv_engines import add_kv_engine
from support.opened_backends import open_backend
from support.rotation import L, RingFixture
from support.softhsm import make_foreign_key, rename_key_pair
from support.vault_parts import open_client, token_access
from support.vault_proxy import VaultProxy

PAYLOAD = b'{"iss":"x"}'


def sign(rings):
    return rings.sign("ring", PAYLOAD, typ="at+jwt", lifetime_seconds=L)


class Misreading:
    """A place of encrypted keys that gives the second version for the first `lies` times."""

    def __init__(self, storage, own) -> None:
        self._storage = storage
        self._own = own
        self.lies = 0
        self.readings = 0

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def load(self, ring):
        self.readings += 1
        held = self._storage.load(ring)
        if not self.lies:
            return held
        self.lies -= 1
        return (self._own.seal_again(held[1]), *held[1:])


class Resealing(LocalBackend):
    """Keeps the private key of another version under a number, soundly sealed."""

    def seal_again(self, key):
        return replace(self._seal(self._open(key), key.ring, 1, key.alg), version=1)


class Place:
    """A world whose backend reads version 1 wrongly after `lie(times)`; `count()` its readings."""

    def __init__(self, world, open_again, lie, count) -> None:
        self.world, self.open_again, self.lie, self.count = world, open_again, lie, count

    def make_rings(self) -> KeyRings:
        """Return the rings of a new process, which has read nothing of the private keys."""
        world = self.world
        backends = {world.definition.backend_uri: self.open_again()}
        return KeyRings(
            world.store, backends, world.clock, "ring", timing=world.timing, notify=world.received
        )


@contextmanager
def local_place(storage, kind):
    own = Resealing(storage, bytes(32), None)
    misreading = Misreading(storage, own)
    world = RingFixture(make_backend=lambda clock: kind(misreading, bytes(32), clock))
    own._clock = world.clock  # noqa: SLF001 - one for both

    def lie(times: int) -> None:
        # The standby is read first, from the same listing.
        misreading.lies = times + 1 if times else 0

    def open_again():
        return kind(misreading, bytes(32), world.clock)

    yield Place(world, open_again, lie, lambda: misreading.readings)


@contextmanager
def kv_place(server):
    """A ring in a KV engine behind a proxy that reads version 2 for version 1."""
    with VaultProxy(server.address) as proxy:
        mount = add_kv_engine(server.admin())
        path = f"/v1/{mount}/data/a/ring"

        def lie(times: int) -> None:
            numbers = iter([2] * times)
            proxy.redirect = lambda _, asked: (
                asked.replace(f"{path}/1?", f"{path}/{next(numbers, 1)}?")
                if f"{path}/1?" in asked
                else asked
            )

        with open_client(token_access(proxy.address, token=server.token)) as client:
            world = RingFixture(
                make_backend=lambda _: VaultKvBackend(client, mount, "a/ring", "ring")
            )
            yield Place(
                world,
                lambda: VaultKvBackend(client, mount, "a/ring", "ring"),
                lie,
                lambda: proxy.count(f"{path}/1?"),
            )
        server.admin().disable_engine(mount)


@pytest.fixture(params=["sql", "file", "kv"])
def place(request, tmp_path):
    if request.param == "kv":
        opened = kv_place(request.getfixturevalue("openbao"))
    elif request.param == "file":
        opened = local_place(FileEncryptedKeyStorage(tmp_path / "keys.json"), FileBackend)
    else:
        opened = local_place(MemoryEncryptedKeyStorage(), LocalBackend)
    with opened as found:
        found.world.tick()
        yield found


def test_a_key_that_was_read_wrongly_once_fails_no_request(place):
    place.lie(1)
    rings = place.make_rings()
    rings.refresh()
    world = place.world
    assert SignatureDiscarded("ring", world.key(1).kid) in world.received.all
    tokens = [sign(rings) for _ in range(99)]
    assert {token.kid for token in tokens} == {world.key(1).kid}
    assert all(rings.verify(token.token) for token in tokens)
    assert rings.why_not_ready("ring") == ""


def test_a_key_that_goes_on_being_read_wrongly_is_read_once_a_second(place):
    place.lie(1_000)
    rings = place.make_rings()
    rings.refresh()
    before = place.count()
    for _ in range(50):
        with pytest.raises(BackendBroken, match="does not match the published key"):
            sign(rings)
    assert place.count() == before
    assert rings.why_not_ready("ring").startswith("keys: a signature for ")
    place.lie(0)
    time.sleep(FORGET_INTERVAL_SECONDS)
    assert sign(rings).kid == place.world.key(1).kid
    assert place.count() == before + 1
    assert rings.why_not_ready("ring") == ""


def test_a_handle_of_a_token_that_means_another_key_is_looked_for_again(softhsm):
    """As after an operator has restored a token's keys under new handles."""
    token = softhsm.add_token("poisoned")
    world = RingFixture(
        make_backend=lambda clock: open_backend(token.uri(), BackendContext(clock=clock))
    )
    world.tick()
    rings = world.make_node()
    rename_key_pair(token, "ring-1", "aside")
    make_foreign_key(token, "ring-1")
    with pytest.raises(BackendBroken):
        sign(rings)
    rename_key_pair(token, "ring-1", "foreign")
    rename_key_pair(token, "aside", "ring-1")
    for _ in range(3):
        signed = sign(rings)
        assert signed.kid == world.key(1).kid
        assert rings.verify(signed.token).ring == "ring"


def test_a_transit_key_whose_type_was_read_wrongly_is_read_again(openbao, bao_mount, monkeypatch):
    bao_mount.admin.create_key("ring", mount=bao_mount.mount)
    monkeypatch.setattr("keys.backends.vault.transit.KIND_INTERVAL_SECONDS", 0.2)
    with open_client(token_access(openbao.address, token=openbao.token)) as client:
        backend = TransitBackend(client, bao_mount.mount, "ring", "ring")
        backend._kind = "ed25519"  # noqa: SLF001 - as a wrong answer would have set it
        assert backend.sign("ring", "1", "ES256", [b"data"])
        for _ in range(3):
            with pytest.raises(VersionUnusable):
                backend.sign("ring", "1", "RS256", [b"data"])
