"""The reason why this process could not sign now: proved cheaply, never assumed."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from keys.backend import TracedSignature
from keys.backends.local.sql import LocalBackend
from keys.errors import BackendDenied, BackendUnavailable, StoreUnavailable
from keys.events import BackendAnswered, ignore
from keys.key_set import read_ring
from keys.lifecycle.orders import Revoke, Taint
from keys.memory import MemoryEncryptedKeyStorage
from keys.ring import KeyRings
from keys.signer import (
    LOGGED_PROOF_INTERVAL_SECONDS,
    PROOF_INTERVAL_SECONDS,
    TRIED_AT_ONCE,
    CheckedSigner,
)
from keys.signing_key import KeyState
from support.fenced_backend import FencedBackend
from support.received_events import ReceivedEvents
from support.rotation import RingFixture

HOUR = 3_600


@pytest.fixture
def world():
    world = RingFixture()
    world.tick()
    return world


def open_rings(world, backend=None, **options):
    uri = world.definition.backend_uri
    rings = KeyRings(
        world.store,
        {uri: backend or world.backend},
        world.clock,
        "ring",
        timing=world.timing,
        notify=world.received,
        **options,
    )
    rings.refresh()
    return rings


def test_a_process_that_can_sign_is_ready(world):
    assert open_rings(world).why_not_ready("ring") == ""


def test_a_process_that_has_read_nothing_is_not(world):
    rings = KeyRings(world.store, {}, world.clock, "ring")
    assert rings.why_not_ready("ring") == "keys: the key rings have not been read yet"


def test_a_ring_that_is_not_there_or_has_no_signer_is_named(world):
    rings = open_rings(world)
    assert "'another' has no key that may sign now" in rings.why_not_ready("another")
    for version in (1, 2):
        world.apply(Revoke(world.key(version).kid, "leaked"))
        world.backend.away = True
    rings.refresh()
    assert "'ring' has no key that may sign now" in rings.why_not_ready("ring")


@pytest.mark.parametrize("offset", [HOUR, -HOUR, 5.1])
def test_a_clock_that_is_off_is_a_reason(world, offset):
    world.store.offset_seconds = offset
    rings = open_rings(world)
    assert rings.why_not_ready("ring").startswith("clock: this machine's clock is ")
    assert rings.is_clock_off
    assert world.received.alarms() == ["clock.off"]
    world.store.offset_seconds = 0.0
    rings.refresh()
    assert rings.why_not_ready("ring") == ""
    assert not rings.is_clock_off


def test_a_reading_that_is_too_old_is_a_reason_and_nothing_is_read_for_it(world, monkeypatch):
    rings = open_rings(world)

    def locked(_loaded_at):
        raise AssertionError("readiness reads no tables")

    monkeypatch.setattr(world.store, "load_rings", locked)
    world.clock.advance(120)
    assert rings.why_not_ready("ring") == ""
    world.clock.advance(1)
    assert rings.why_not_ready("ring").startswith("keys: the key rings were last read at 2030-")


def test_a_clock_that_went_back_makes_no_old_reading_young(world, monkeypatch):
    rings = open_rings(world)

    def away(_loaded_at):
        raise StoreUnavailable("away")

    monkeypatch.setattr(world.store, "load_rings", away)
    world.clock.advance(-HOUR)
    assert rings.why_not_ready("ring").startswith("keys: the key rings were last read at ")
    with pytest.raises(BackendUnavailable):
        rings.sign("ring", b"{}", typ="at+jwt", lifetime_seconds=60)


def test_another_key_encryption_key_is_a_reason():
    storage = MemoryEncryptedKeyStorage()
    world = RingFixture(make_backend=lambda clock: LocalBackend(storage, bytes(32), clock))
    world.tick()
    rings = open_rings(world, LocalBackend(storage, bytes(range(32)), world.clock))
    problem = rings.why_not_ready("ring")
    assert problem.startswith("keys: the private key of ")
    assert problem.endswith("is encrypted under another key-encryption key")


FAULTS = {
    "away": ("away", "away"),
    "switched off": ("disabled", "may not sign"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_backend_that_does_not_sign_is_a_reason(world, fault):
    attribute, words = FAULTS[fault]
    rings = open_rings(world)
    setattr(world.backend, attribute, True)
    assert words in rings.why_not_ready("ring")


def test_a_backend_that_is_not_open_is_a_reason(world):
    rings = KeyRings(world.store, {}, world.clock, "ring")
    rings.refresh()
    assert "is not open" in rings.why_not_ready("ring")


def test_a_ring_whose_key_is_tainted_is_judged_by_the_key_that_signs_instead(world):
    rings = open_rings(world)
    assert rings.why_not_ready("ring") == ""
    world.apply(Taint(world.key(1).kid, "unsure"))
    rings.refresh()
    assert world.states()[:2] == [KeyState.TAINTED, KeyState.ACTIVE]
    assert rings.why_not_ready("ring") == ""


# ------------------------------------------------------------------------------- how often


class Counting(FencedBackend):
    """Counts what it is asked, and logs each signature if `logs`."""

    def __init__(self, clock) -> None:
        super().__init__(clock)
        self.signatures = self.views = 0
        self.logs = False
        self.denies = False

    def describe_versions(self, ring):
        self.views += 1
        return super().describe_versions(ring)

    def sign(self, ring, ref, alg, inputs):
        self.signatures += 1
        if self.denies:
            raise BackendDenied("its policy does not permit this")
        signatures = super().sign(ring, ref, alg, inputs)
        if not self.logs:
            return signatures
        return [TracedSignature(each, f"call-{self.signatures}") for each in signatures]


class Asked:
    """A key that is asked about, and the time that passes."""

    def __init__(self) -> None:
        self.world = RingFixture(make_backend=Counting)
        self.backend = self.world.backend
        self.seconds = 0.0
        self.proofs: list[tuple[str, str]] = []
        self.signer = CheckedSigner(
            {self.world.definition.backend_uri: self.backend},
            ReceivedEvents(),
            on_proof=lambda kid, request_id: self.proofs.append((kid, request_id)),
            monotonic=lambda: self.seconds,
        )
        self.ring = read_ring(self.world.ring)
        self.key = self.ring.find_active(self.world.clock())
        self.backend.views = 0

    def ask(self, after: float = 0.0) -> str:
        self.seconds += after
        return self.signer.find_problem(self.ring, self.key)

    def sign(self) -> bytes:
        return self.signer.sign(self.ring, self.key, b"data")


@pytest.fixture
def asked():
    return Asked()


def test_at_most_one_proof_a_second(asked):
    assert [asked.ask() for _ in range(100)] == [""] * 100
    assert asked.backend.signatures == 1
    asked.ask(PROOF_INTERVAL_SECONDS)
    assert asked.backend.signatures == 2
    asked.backend.away = True
    assert asked.ask(0.5) == "", "known for a second"
    assert asked.ask(0.5) == "away"
    assert asked.ask() == "away"
    assert asked.backend.signatures == 3
    asked.backend.away = False
    assert asked.ask(PROOF_INTERVAL_SECONDS) == ""


def test_what_a_request_has_shown_needs_no_proof(asked):
    for _ in range(10):
        asked.sign()
        assert asked.ask(0.5) == ""
    assert asked.backend.signatures == 10
    asked.backend.away = True
    with pytest.raises(BackendUnavailable):
        asked.sign()
    assert asked.ask() == "away", "at once"


def test_a_backend_that_logs_signatures_is_looked_at_and_signs_once_a_minute(asked):
    asked.backend.logs = True
    assert asked.ask() == ""
    for _ in range(59):
        assert asked.ask(1.0) == ""
    assert (asked.backend.signatures, asked.backend.views) == (1, 59)
    assert asked.ask(LOGGED_PROOF_INTERVAL_SECONDS - 59) == ""
    assert asked.backend.signatures == 2
    kid = asked.world.key(1).kid
    assert asked.proofs == [(kid, "call-1"), (kid, "call-2")], "for the records"


@pytest.mark.parametrize("fault", ["away", "disabled", "hidden", "floor", "exchanged"])
def test_what_is_wrong_is_seen_by_looking(asked, fault):
    asked.backend.logs = True
    asked.ask()
    backend = asked.backend
    change = {
        "away": lambda: setattr(backend, "away", True),
        "disabled": lambda: setattr(backend, "disabled", True),
        "hidden": lambda: backend.hidden.add(1),
        "floor": lambda: backend.sign_floor.update(ring=2),
        "exchanged": lambda: backend.exchange_keys(RingFixture().backend),
    }
    change[fault]()
    assert asked.ask(1.0) != ""


def test_a_backend_that_refuses_is_asked_to_sign_until_it_does(asked):
    """Looking does not show that it signs again."""
    asked.backend.logs = asked.backend.denies = True
    assert [asked.ask(1.0) for _ in range(3)] == ["its policy does not permit this"] * 3
    assert asked.backend.signatures == 3
    asked.backend.denies = False
    assert asked.ask(1.0) == ""
    assert len(asked.proofs) == 1


def test_a_key_that_left_the_rings_is_forgotten(asked):
    asked.ask()
    rings = open_rings(asked.world)
    asked.signer.prove_candidates(rings._key_set)  # noqa: SLF001 - as the rings do
    assert asked.signer._outcomes  # noqa: SLF001
    asked.world.apply(Revoke(asked.world.key(1).kid, "leaked"))
    rings.refresh()
    asked.signer.prove_candidates(rings._key_set)  # noqa: SLF001
    assert not asked.signer._outcomes  # noqa: SLF001


class TwoRings:
    """A process with a default ring and another one, whose keys a test can spoil."""

    def __init__(self, *, in_process: bool = True) -> None:
        self.world = RingFixture(make_backend=Counting)
        self.backend = self.world.backend
        self.backend.caps = replace(self.backend.caps, in_process=in_process)
        self.backend.denies = True
        self.rings = open_rings(self.world)

    def find(self) -> list[str]:
        return self.rings.find_failures("default")


@pytest.fixture
def at_once(monkeypatch):
    """What was found is asked again without a pause."""
    monkeypatch.setattr("keys.signer.PROOF_INTERVAL_SECONDS", 0.0)


@pytest.mark.usefixtures("at_once")
def test_another_ring_that_cannot_sign_is_named_with_its_reason(caplog):
    """Its clients get no token, which the default ring does not show."""
    two = TwoRings()
    assert two.find() == ["keys:ring its policy does not permit this"]
    assert two.rings.find_failures("ring") == [], "the default ring is asked otherwise"
    for _ in range(3):
        two.rings.refresh()
    assert caplog.text.count("cannot sign: its policy does not permit this") == 1
    two.backend.denies = False
    assert two.find() == []
    two.backend.denies = True
    assert two.find() == [], "what has signed is not tried again"


@pytest.mark.usefixtures("at_once")
def test_a_remote_ring_is_asked_only_after_a_request_has_failed():
    """A monitor costs its backend nothing."""
    two = TwoRings(in_process=False)
    assert two.find() == []
    with pytest.raises(BackendDenied):
        two.rings.sign("ring", b"{}", typ="at+jwt", lifetime_seconds=60)
    assert two.find() == ["keys:ring its policy does not permit this"]
    two.backend.denies = False
    assert two.find() == []
    assert two.world.received.of(BackendAnswered) == [(two.world.definition.backend_uri,)]
    signatures = two.backend.signatures
    assert two.find() == []
    assert two.backend.signatures == signatures


def test_of_many_rings_that_fail_a_few_are_tried_at_a_time_and_each_in_turn(monkeypatch):
    """One check would take minutes, and the next one would follow at once."""
    signer, tried = CheckedSigner({}, ignore), []
    keys = [SimpleNamespace(kid=f"{n}", ring=f"ring-{n}") for n in range(3 * TRIED_AT_ONCE)]

    def fail(key) -> str:
        signer._store_outcome(key, "away")  # noqa: SLF001
        return "away"

    monkeypatch.setattr(signer, "find_problem", lambda _, key: tried.append(key) or fail(key))
    for key in keys:
        fail(key)
    for number in range(1, 4):
        found = signer.find_failures([(None, key) for key in keys])
        assert found == {key.ring: "away" for key in keys}
        assert len(tried) == number * TRIED_AT_ONCE
    assert {key.ring for key in tried} == {key.ring for key in keys}


def test_a_ring_without_a_signer_is_left_to_its_judgement(world):
    for version in (1, 2):
        world.apply(Revoke(world.key(version).kid, "leaked"))
        world.backend.away = True
    assert open_rings(world).find_failures("default") == []
