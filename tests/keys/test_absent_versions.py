"""A version that a backend does not show: an alarm, never a revocation."""

from contextlib import contextmanager

import pytest

from keys.backends.local.file import FileBackend, FileEncryptedKeyStorage
from keys.backends.local.sql import LocalBackend
from keys.backends.registry import BackendContext
from keys.backends.vault.kv import VaultKvBackend
from keys.events import Alarm
from keys.memory import MemoryEncryptedKeyStorage
from keys.signing_key import KeyState
from support.fenced_backend import FencedBackend
from support.kv_engines import add_kv_engine
from support.opened_backends import open_backend
from support.rotation import DAY, L, RingFixture, T
from support.softhsm import delete_key_pair
from support.vault_parts import open_client, token_access
from support.vault_proxy import ProxyAnswer, VaultProxy

S = KeyState
LAG = 120


class Forgetful:
    """A place of encrypted keys whose listings leave versions out."""

    def __init__(self, storage) -> None:
        self._storage = storage
        self.hidden: set[int] = set()

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def load(self, ring):
        return tuple(key for key in self._storage.load(ring) if key.version not in self.hidden)


@contextmanager
def local_world(storage, kind=LocalBackend):
    forgetful = Forgetful(storage)
    world = RingFixture(make_backend=lambda clock: kind(forgetful, bytes(32), clock))
    yield world, forgetful.hidden


@contextmanager
def kv_world(server):
    """A ring in a KV engine behind a proxy that leaves versions out of its lists."""
    hidden: set[int] = set()

    with VaultProxy(server.address) as proxy:
        client = open_client(token_access(proxy.address, token=server.token))
        mount = add_kv_engine(server.admin())

        def answer(method, path):
            if method != "LIST" or not hidden:
                return None
            listed = server.admin().call("LIST", path.removeprefix("/v1/"))
            names = [name for name in listed["data"]["keys"] if int(name) not in hidden]
            return ProxyAnswer(200, {"data": {"keys": names}})

        proxy.answer = answer
        with client as opened:
            world = RingFixture(
                make_backend=lambda _: VaultKvBackend(opened, mount, "a/ring", "ring")
            )
            yield world, hidden
        server.admin().disable_engine(mount)


@pytest.fixture(params=["sql", "file", "kv"])
def listed(request, tmp_path):
    """A world without floors, and the versions that the next listings leave out."""
    if request.param == "sql":
        opened = local_world(MemoryEncryptedKeyStorage())
    elif request.param == "file":
        opened = local_world(FileEncryptedKeyStorage(tmp_path / "keys.json"), FileBackend)
    else:
        opened = kv_world(request.getfixturevalue("openbao"))
    with opened as found:
        found[0].tick()
        yield found


def test_one_listing_without_the_active_version_revokes_nothing(listed):
    world, hidden = listed
    signer = world.key(1).kid
    world.clock.advance(LAG)
    hidden.add(1)
    world.tick()
    assert world.states() == [S.ACTIVE, S.PUBLISHED]
    assert [(alarm.event, alarm.subject) for alarm in world.received.of(Alarm)] == [
        ("key.absent", signer)
    ]
    hidden.clear()
    world.tick()
    node = world.make_node()
    token = node.sign("ring", b"{}", typ="at+jwt", lifetime_seconds=L)
    assert token.kid == signer


def test_a_listing_without_a_retired_version_is_nothing(listed):
    world, hidden = listed
    world.tick(T)
    hidden.add(1)
    world.tick(LAG)
    assert world.states() == [S.RETIRED, S.ACTIVE, S.PUBLISHED]
    assert world.received.alarms() == []


def test_a_token_whose_listing_lacks_the_active_version_revokes_nothing(softhsm):
    """A key that is deleted from the token: its tokens live until they expire."""
    token = softhsm.add_token("absent")
    world = RingFixture(
        make_backend=lambda clock: open_backend(token.uri(), BackendContext(clock=clock))
    )
    world.tick()
    delete_key_pair(token, "ring-1")
    world.tick(LAG)
    assert world.states() == [S.ACTIVE, S.PUBLISHED]
    assert world.received.alarms() == ["key.absent"]


@pytest.fixture
def world():
    world = RingFixture()
    world.tick()
    return world


def test_a_version_that_is_just_made_may_be_missing_from_a_reading_for_a_while(world):
    """A standby of the Vault lags behind its leader."""
    world.tick(T)
    assert world.states() == [S.RETIRED, S.ACTIVE, S.PUBLISHED]
    world.backend.late = 1
    world.tick(LAG - 1)
    assert world.received.alarms() == []
    world.tick(1)
    assert world.received.alarms() == ["key.absent"]


def test_an_explicit_floor_revokes_what_is_not_shown_any_more(world):
    world.backend.verify_floor["ring"] = 2
    world.tick(LAG)
    assert world.states()[:2] == [S.REVOKED, S.ACTIVE]
    assert world.received.alarms() == ["floor.changed_externally"]


class Unfenced(FencedBackend):
    """A plug-in whose floor is the lowest version that it lists."""

    fence = None


def test_floors_of_a_backend_that_has_no_fences_are_not_followed():
    """The floors of a listing are not orders."""
    world = RingFixture(make_backend=Unfenced)
    world.tick()
    world.backend.verify_floor["ring"] = world.backend.sign_floor["ring"] = 2
    world.tick(LAG)
    assert world.states() == [S.ACTIVE, S.PUBLISHED]
    assert world.received.alarms() == ["key.absent"]


def test_an_alarm_about_an_absent_version_is_raised_once(world):
    world.backend.hidden.add(1)
    for _ in range(3):
        world.tick(DAY)
    assert world.received.alarms().count("key.absent") == 1
