"""The state of the rings in a process is replaced as a whole, and kept through faults."""

import json
import os
import signal
import threading
from dataclasses import replace

import pytest

from keys.errors import BackendUnavailable, NoActiveKeyError, StoreUnavailable, TokenRefusedError
from keys.signing_key import KeyState


def sign(rings, ring="ES256"):
    return rings.sign(ring, b"{}", typ="at+jwt", lifetime_seconds=60).token


def jwks_kids(rings):
    return [key["kid"] for key in json.loads(rings.jwks())["keys"]]


def test_nothing_is_known_before_the_first_reading(empty_ring_set):
    rings = empty_ring_set.rings
    assert json.loads(rings.jwks()) == {"keys": []}
    assert (rings.ring_names(), rings.algorithms(), rings.snapshots()) == ((), (), ())
    assert not rings.has_active_key("ES256")
    rings.spend_one_verification()
    with pytest.raises(NoActiveKeyError):
        sign(rings)


def test_a_store_that_is_away_leaves_what_is_known(ring_set, monkeypatch, caplog):
    def unreachable(_loaded_at):
        raise StoreUnavailable("the database is away")

    token, jwks = sign(ring_set.rings), ring_set.rings.jwks()
    monkeypatch.setattr(ring_set.store, "load_rings", unreachable)
    ring_set.rings.refresh()
    assert "the database is away" in caplog.text
    assert ring_set.rings.jwks() == jwks
    assert ring_set.rings.verify(token)
    assert sign(ring_set.rings)


def test_requests_that_wait_for_a_failing_load_share_its_result(ring_set, monkeypatch):
    """Otherwise each would wait as long as a statement may, one after the other."""
    began, loads = threading.Event(), []

    def hang(_loaded_at):
        loads.append(threading.current_thread())
        began.wait(30)
        raise StoreUnavailable("a table is locked")

    monkeypatch.setattr(ring_set.store, "load_rings", hang)
    ring_set.clock.advance(121)
    refused = []

    def request():
        with pytest.raises(BackendUnavailable) as caught:
            sign(ring_set.rings)
        refused.append(caught.value)

    threads = [threading.Thread(target=request) for _ in range(8)]
    for thread in threads:
        thread.start()
    began.set()
    for thread in threads:
        thread.join()
    assert (len(refused), len(loads)) == (8, 1)


def test_a_failure_is_logged_once_until_the_store_can_be_read(ring_set, monkeypatch, caplog):
    reasons = iter(["it starts", "it starts", "it refuses the login", "it starts"])

    def unreachable(_loaded_at):
        raise StoreUnavailable(next(reasons))

    for times in (3, 1):
        with monkeypatch.context() as patch:
            patch.setattr(ring_set.store, "load_rings", unreachable)
            for _ in range(times):
                ring_set.rings.refresh()
        ring_set.rings.refresh()
    logged = [record.getMessage().rpartition(": ")[2] for record in caplog.records]
    assert logged == ["it starts", "it refuses the login", "it starts"]


def test_an_old_reading_does_not_bring_back_what_was_revoked(ring_set, caplog):
    token, old = sign(ring_set.rings), dict(ring_set.store.rings)
    ring_set.change("ES256", 1, KeyState.REVOKED)
    ring_set.rings.refresh()
    ring_set.store.rings = old
    ring_set.rings.refresh()
    assert "after epoch 2 had been seen" in caplog.text
    with pytest.raises(TokenRefusedError):
        ring_set.rings.verify(token)


def test_the_jwks_holds_what_verifies_and_public_members_only(ring_set):
    """Case G74."""
    ring_set.add("RS256")
    ring_set.add("EdDSA")
    keys = json.loads(ring_set.rings.jwks())["keys"]
    assert len({key["kid"] for key in keys}) == len(keys) == 6
    members = {"EC": {"crv", "x", "y"}, "RSA": {"n", "e"}, "OKP": {"crv", "x"}}
    for key in keys:
        assert set(key) == members[key["kty"]] | {"kty", "use", "alg", "kid"}
        assert key["use"] == "sig"
    assert {key["alg"] for key in keys} == {"ES256", "RS256", "EdDSA"}


@pytest.mark.parametrize("state", list(KeyState))
def test_the_jwks_and_verification_agree(ring_set, state):
    """Case G74."""
    token, kid = sign(ring_set.rings), ring_set.key("ES256", 1).kid
    ring_set.change("ES256", 1, state)
    ring_set.rings.refresh()
    published = kid in jwks_kids(ring_set.rings)
    assert published is (
        state in {KeyState.PUBLISHED, KeyState.ACTIVE, KeyState.RETIRED, KeyState.TAINTED}
    )
    if published:
        assert ring_set.rings.verify(token).kid == kid
    else:
        with pytest.raises(TokenRefusedError, match="unknown key"):
            ring_set.rings.verify(token)


def test_the_jwks_is_the_same_on_every_node_and_its_tag_changes_with_it(ring_set):
    """Case G74."""
    other = ring_set.open_rings()
    other.refresh()
    assert other.jwks() == ring_set.rings.jwks()
    tag = ring_set.rings.jwks_etag()
    assert other.jwks_etag() == tag
    assert tag.startswith('"')
    assert tag.endswith('"')
    ring_set.rings.refresh()
    assert ring_set.rings.jwks_etag() == tag
    ring_set.change("ES256", 2, KeyState.REMOVED)
    ring_set.rings.refresh()
    assert ring_set.rings.jwks_etag() != tag


def test_rings_are_named_with_their_algorithms(ring_set):
    ring_set.add("RS256")
    rings = ring_set.rings
    assert rings.ring_names() == ("ES256", "RS256")
    assert rings.algorithms() == ("ES256", "RS256")
    assert [snapshot.name for snapshot in rings.snapshots()] == ["ES256", "RS256"]
    assert all(snapshot.loaded_at == ring_set.clock() for snapshot in rings.snapshots())


@pytest.mark.parametrize(
    "spoilt",
    [
        {"kid": "not-the-thumbprint"},
        {"alg": "ES384"},
        {"public_jwk": {"kty": "oct", "k": "AAAA"}},
        {"public_jwk": {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}},
        {"public_jwk": {}},
    ],
)
def test_a_key_that_cannot_be_trusted_is_left_out_and_the_others_go_on(ring_set, spoilt, caplog):
    ring = ring_set.store.rings["ES256"]
    keys = (ring.keys[0], replace(ring.keys[1], **spoilt))
    ring_set.store.rings["ES256"] = replace(ring, epoch=9, keys=keys)
    ring_set.rings.refresh()
    assert "skipping key" in caplog.text
    assert jwks_kids(ring_set.rings) == [ring.keys[0].kid]
    assert ring_set.rings.verify(sign(ring_set.rings))


def test_readers_never_see_half_a_change(ring_set):
    ended, failures = threading.Event(), []

    def read():
        while not ended.is_set():
            try:
                ring_set.rings.verify(sign(ring_set.rings))
            except Exception as error:  # noqa: BLE001 - whatever it is, the test names it
                failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(200):
        state = KeyState.REMOVED if number % 2 else KeyState.PUBLISHED
        ring_set.change("ES256", 2, state)
        ring_set.rings.refresh()
    ended.set()
    for reader in readers:
        reader.join()
    assert failures == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_reads_signs_and_verifies(ring_set):
    entered, leave = threading.Event(), threading.Event()
    load = ring_set.store.load_rings

    def slow_load(loaded_at):
        entered.set()
        leave.wait(10)
        return load(loaded_at)

    ring_set.store.load_rings = slow_load
    reader = threading.Thread(target=ring_set.rings.refresh)
    reader.start()
    entered.wait(10)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # whatever goes wrong, no child is left behind
        try:
            ring_set.store.load_rings = load
            ring_set.rings.refresh()  # waits for ever if the parent's lock came along
            os.write(writing, sign(ring_set.rings).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    leave.set()
    reader.join()
    with os.fdopen(reading) as pipe:
        token = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    assert ring_set.rings.verify(token)
    assert token != sign(ring_set.rings)
