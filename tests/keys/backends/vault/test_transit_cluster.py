"""Transit on three nodes: a leader that goes, standbys that lag."""

import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from time import monotonic

import hvac
import pytest

from keys.backends.vault.transit import TransitBackend
from keys.errors import BackendUnavailable, VersionUnusable
from keys.jose.algorithms import get_algorithm
from keys.jose.jwk import load_public_key
from keys.jose.signatures import make_verifier
from support.vault_parts import open_client, token_access


@pytest.fixture(scope="module")
def cluster(raft_cluster):
    raft_cluster.leader().admin().enable_transit()
    return raft_cluster


@pytest.fixture
def ring(cluster, request):
    """A key of the test's own, on every node."""
    name = f"ring-{request.node.name[-20:].strip('_[]')}"
    cluster.leader().admin().create_key(name)
    for node in cluster.nodes:
        await_that(lambda node=node: node.admin().read_key(name)["latest_version"] == 1)
    return name


def await_that(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = monotonic() + seconds
    while True:
        with suppress(BackendUnavailable, hvac.exceptions.VaultError):
            if condition():
                return
        assert monotonic() < deadline
        time.sleep(0.02)


def backend_at(client, ring: str) -> TransitBackend:
    return TransitBackend(client, "transit", ring, ring)


def test_a_change_of_leader_costs_no_signature(cluster, ring):
    """Case G79"""
    leader = cluster.leader()
    others = [node.address for node in cluster.standbys()]
    access = token_access(leader.address, *others, token=cluster.token)
    with open_client(access) as client:
        backend = backend_at(client, ring)
        (version,) = backend.describe_versions(ring).versions
        verify = make_verifier(load_public_key(version.jwk, "ES256"), get_algorithm("ES256"))
        cluster.step_down()
        durations, begun = [], monotonic()
        while monotonic() - begun < 1.5:
            started = monotonic()
            (signature,) = backend.sign(ring, "1", "ES256", [b"data"])
            durations.append(monotonic() - started)
            verify(signature, b"data")
        assert max(durations) < 2
        cluster.await_leader_other_than(leader)


def test_a_killed_leader_costs_no_signature(cluster, ring):
    """Case G79"""
    leader = cluster.leader()
    others = [node.address for node in cluster.standbys()]
    access = token_access(leader.address, *others, token=cluster.token)
    with open_client(access) as client:
        backend = backend_at(client, ring)
        backend.sign(ring, "1", "ES256", [b"data"])
        leader.kill()
        try:
            for _ in range(20):
                assert len(backend.sign(ring, "1", "ES256", [b"data"])) == 1
        finally:
            leader.start()


def test_a_version_that_a_standby_does_not_know_yet_signs_elsewhere(cluster, ring):
    """A standby knows a new version a moment later; whoever asks it first is sent on."""
    leader, standby = cluster.leader(), cluster.standbys()[0]
    access = token_access(standby.address, leader.address, token=cluster.token)
    with open_client(token_access(leader.address, token=cluster.token)) as at_leader:
        writing = backend_at(at_leader, ring)
        for number in range(2, 22):
            with open_client(access) as client:
                reading = backend_at(client, ring)
                reading.describe_versions(ring)
                version = writing.create(ring, "ES256")
                assert version.ref == str(number)
                (signature,) = reading.sign(ring, version.ref, "ES256", [b"data"])
            public = load_public_key(version.jwk, "ES256")
            make_verifier(public, get_algorithm("ES256"))(signature, b"data")


def test_changes_go_to_the_leader_whoever_is_asked_first(cluster, ring):
    """A standby would refuse a fence for a version that it does not know yet."""
    leader, standby = cluster.leader(), cluster.standbys()[0]
    access = token_access(standby.address, leader.address, token=cluster.token)
    for number in range(2, 12):
        with open_client(access) as client:
            backend = backend_at(client, ring)
            assert backend.create(ring, "ES256").ref == str(number)
        with open_client(access) as client:
            backend_at(client, ring).fence(ring, str(number))
        with open_client(access) as client:
            backend_at(client, ring).fence(ring, str(number - 1))
        assert leader.admin().read_key(ring)["min_encryption_version"] == number


def test_a_lagging_read_shows_an_older_view_and_no_error(cluster, ring):
    """Whoever reads has to take a version that is missing for nothing but an old read."""
    standby = cluster.standbys()[0]
    with (
        open_client(token_access(cluster.leader().address, token=cluster.token)) as at_leader,
        open_client(token_access(standby.address, token=cluster.token)) as at_standby,
    ):
        writing, reading = backend_at(at_leader, ring), backend_at(at_standby, ring)
        seen = []
        for number in range(2, 22):
            assert writing.create(ring, "ES256").ref == str(number)
            seen.append(len(reading.describe_versions(ring).versions))
        assert all(before <= after for before, after in pairwise(seen))
        await_that(lambda: len(reading.describe_versions(ring).versions) == 21)


def test_a_fence_holds_on_every_node_soon(cluster, ring):
    with open_client(token_access(*cluster.addresses, token=cluster.token)) as client:
        backend = backend_at(client, ring)
        backend.create(ring, "ES256")
        backend.fence(ring, "2")
        for node in cluster.nodes:
            with open_client(token_access(node.address, token=cluster.token)) as own:
                alone = backend_at(own, ring)
                await_that(lambda alone=alone: _refuses(alone, ring))


def _refuses(backend: TransitBackend, ring: str) -> bool:
    try:
        backend.sign(ring, "1", "ES256", [b"data"])
    except VersionUnusable:
        return True
    return False
