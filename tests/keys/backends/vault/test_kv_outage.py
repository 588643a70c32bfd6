"""Keys of a KV engine while the Vault is away: those in memory sign on, nothing else does."""

from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from time import monotonic

import pytest

from keys.backends.vault.kv import VaultKvBackend
from keys.errors import BackendUnavailable, NoActiveKeyError
from keys.lifecycle.first_key import create_first_key
from keys.memory import MemoryKeyStore
from keys.ring import KeyRings
from keys.signing_key import RingDefinition
from keys.store import KeyChange
from support.clock import FakeClock
from support.kv_engines import add_kv_engine
from support.vault_parts import open_client, token_access

RING = "ring"
PAYLOAD = b'{"iss":"https://authz.example.org","exp":1900000000}'


@pytest.fixture
def mount(raft_server):
    return add_kv_engine(raft_server.admin())


@pytest.fixture
def open_backend(raft_server, mount):
    """Open the folder as another process would."""
    opened = []

    def open_it():
        access = token_access(
            raft_server.address,
            token=raft_server.token,
            read_timeout_seconds=0.3,
            total_timeout_seconds=0.5,
        )
        context = open_client(access)
        opened.append(context)
        return VaultKvBackend(context.__enter__(), mount, f"authz/{RING}", RING)

    yield open_it
    for context in opened:
        context.__exit__(None, None, None)


@contextmanager
def sealed(server):
    server.seal()
    try:
        yield
    finally:
        server.unseal()


@contextmanager
def killed(server):
    server.kill()
    try:
        yield
    finally:
        server.start()
        server.unseal()


OUTAGES = {"sealed": sealed, "killed": killed, "silent": lambda server: server.paused()}


@pytest.fixture(params=list(OUTAGES))
def outage(request, raft_server):
    return OUTAGES[request.param](raft_server)


def test_a_loaded_key_signs_on_and_no_other(open_backend, outage):
    """Case G79."""
    backend = open_backend()
    first, second = (backend.create(RING, "ES256") for _ in range(2))
    backend.sign(RING, first.ref, "ES256", [b"data"])
    with outage:
        begun = monotonic()
        for _ in range(100):
            assert len(backend.sign(RING, first.ref, "ES256", [b"data"])[0]) == 64
        assert monotonic() - begun < 20
        begun = monotonic()
        for attempt in (
            lambda: backend.sign(RING, second.ref, "ES256", [b"data"]),
            lambda: backend.describe_versions(RING),
            lambda: backend.create(RING, "ES256"),
            lambda: open_backend().sign(RING, first.ref, "ES256", [b"data"]),
        ):
            with pytest.raises(BackendUnavailable) as caught:
                attempt()
            assert caught.value.retry_after >= 1
        health = backend.health()
        assert not health.usable
        assert "1 key is in memory" in health.detail
        assert monotonic() - begun < 30
    assert until_back(lambda: backend.sign(RING, second.ref, "ES256", [b"data"]))


def until_back(attempt):
    """Repeat what is refused while a breaker has not noticed yet that the Vault is back."""
    deadline = monotonic() + 20
    while True:
        try:
            return attempt()
        except BackendUnavailable:
            assert monotonic() < deadline


def open_rings(store, backend, clock):
    rings = KeyRings(store, {"kv://": backend}, clock, RING)
    rings.refresh()
    return rings


def sign(rings):
    return rings.sign(RING, PAYLOAD, typ="at+jwt", lifetime_seconds=900)


def test_tokens_are_issued_through_an_outage_even_over_a_change_of_keys(open_backend, raft_server):
    """Case G79."""
    store, clock, backend = MemoryKeyStore(), FakeClock(), open_backend()
    definition = RingDefinition(name=RING, alg="ES256", backend_uri="kv://")
    assert create_first_key(store, backend, definition, clock=clock, actor="test")
    (ring,) = store.load_rings(clock())
    standby = replace(ring.keys[1], activate_at=clock() + timedelta(seconds=60))
    plan = KeyChange(key=standby, event="test", actor="test", reason="test", at=clock())
    assert store.change_ring(RING, ring.epoch, [plan])
    rings = open_rings(store, backend, clock)
    before = sign(rings)
    with sealed(raft_server):
        rings.refresh()
        assert sign(rings).kid == before.kid
        clock.advance(61)
        after = sign(rings)
        assert after.kid == standby.kid != before.kid
        for token in (before, after):
            assert rings.verify(token.token).payload == PAYLOAD


def test_a_process_that_starts_in_an_outage_issues_nothing_until_it_ends(open_backend, raft_server):
    """Case G82."""
    store, clock, backend = MemoryKeyStore(), FakeClock(), open_backend()
    definition = RingDefinition(name=RING, alg="ES256", backend_uri="kv://")
    assert create_first_key(store, backend, definition, clock=clock, actor="test")
    before = sign(open_rings(store, backend, clock))
    with sealed(raft_server):
        rings = open_rings(store, open_backend(), clock)
        with pytest.raises((BackendUnavailable, NoActiveKeyError)):
            sign(rings)
        assert rings.verify(before.token).payload == PAYLOAD
    assert until_back(lambda: sign(rings)).kid == before.kid
    assert len(backend.describe_versions(RING).versions) == 2
