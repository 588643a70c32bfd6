"""The rings in the store as metrics, at one moment."""

from dataclasses import replace
from datetime import timedelta

import pytest

from authz_server.metrics import definitions as families
from authz_server.metrics.rings import sample_nodes, sample_rings, state_now
from keys.memory import empty_ring
from keys.signing_key import KeyState, RingDefinition, SigningKey
from keys.store import NodeReport
from support.clock import FakeClock

NOW = FakeClock()()


def key(version, state, activates_in_seconds=None):
    return SigningKey(
        ring="es256",
        version=version,
        kid=f"kid-{version}",
        alg="ES256",
        public_jwk={},
        state=state,
        created_at=NOW,
        activate_at=None
        if activates_in_seconds is None
        else NOW + timedelta(seconds=activates_in_seconds),
    )


def ring(*keys, **members):
    definition = RingDefinition(name="es256", alg="ES256", backend_uri="sql://")
    return replace(empty_ring(definition), epoch=7, keys=keys, **members)


def samples(*rings):
    return {(found.family.name, *found.labels): found.value for found in sample_rings(rings, NOW)}


def test_a_ring_shows_age_state_and_what_comes():
    found = samples(
        ring(
            key(1, KeyState.RETIRED, -500),
            key(2, KeyState.ACTIVE, -100),
            key(3, KeyState.PUBLISHED, 50),
            key(4, KeyState.PUBLISHED),
        )
    )
    assert found == {
        ("authz_server_key_ring_latest_epoch", "es256"): 7,
        ("authz_server_signing_key_state", "es256", "kid-1", "retired"): 1,
        ("authz_server_signing_key_state", "es256", "kid-2", "active"): 1,
        ("authz_server_signing_key_state", "es256", "kid-3", "published"): 1,
        ("authz_server_signing_key_state", "es256", "kid-4", "published"): 1,
        ("authz_server_signing_key_age_seconds", "es256"): 100,
        ("authz_server_key_rotation_interval_seconds", "es256"): 2_592_000,
        ("authz_server_key_next_activation_timestamp", "es256"): NOW.timestamp() + 50,
    }


def test_the_clock_decides_who_is_active_before_anybody_records_it():
    found = samples(ring(key(1, KeyState.ACTIVE, -500), key(2, KeyState.PUBLISHED, -1)))
    assert ("authz_server_signing_key_state", "es256", "kid-1", "retired") in found
    assert ("authz_server_signing_key_state", "es256", "kid-2", "active") in found
    assert found["authz_server_signing_key_age_seconds", "es256"] == 1
    assert ("authz_server_key_next_activation_timestamp", "es256") not in found


def test_a_ring_that_another_has_succeeded_has_no_active_key_to_grow_old():
    past = NOW - timedelta(seconds=1)
    keys = (key(1, KeyState.ACTIVE, -500), key(2, KeyState.PUBLISHED, 50))
    before = samples(ring(*keys, successor="other", succeeded_at=NOW + timedelta(seconds=50)))
    assert ("authz_server_key_next_activation_timestamp", "es256") not in before
    found = samples(ring(*keys, successor="other", succeeded_at=past))
    assert not [name for name in found if name[0] == "authz_server_signing_key_age_seconds"]
    assert ("authz_server_signing_key_state", "es256", "kid-1", "retired") in found
    later = NOW + timedelta(seconds=1)
    still = samples(ring(*keys, successor="other", succeeded_at=later))
    assert ("authz_server_signing_key_state", "es256", "kid-1", "active") in still


def test_a_ring_whose_successor_is_held_signs_on():
    past = NOW - timedelta(seconds=1)
    left = ring(key(1, KeyState.ACTIVE, -500), successor="other", succeeded_at=past)
    held = replace(ring(key(1, KeyState.PUBLISHED)), name="other", frozen=True)
    found = samples(left, held)
    assert found["authz_server_signing_key_age_seconds", "es256"] == 500
    assert ("authz_server_signing_key_state", "es256", "kid-1", "active") in found


@pytest.mark.parametrize("state", [KeyState.TAINTED, KeyState.REVOKED, KeyState.REMOVED])
def test_other_states_are_as_recorded(state):
    active = key(2, KeyState.ACTIVE, -1)
    assert state_now(key(1, state, -500), active) is state
    assert state_now(key(1, state, -500), None) is state


def test_a_ring_without_keys_shows_its_epoch_alone():
    assert samples(ring()) == {("authz_server_key_ring_latest_epoch", "es256"): 7}


def test_processes_that_run_show_what_they_have_seen():
    def report(node, seconds_ago, epoch, offset=0.0):
        return NodeReport(
            node=node,
            ring="es256",
            epoch_seen=epoch,
            seen_at=NOW - timedelta(seconds=seconds_ago),
            clock_offset_seconds=offset,
        )

    found = sample_nodes([report("a", 0, 7), report("b", 60, 6, 1.5), report("c", 91, 5)], NOW)
    assert {(each.family, each.labels): each.value for each in found} == {
        (families.NODE_EPOCH, ("es256", "a")): 7,
        (families.NODE_EPOCH, ("es256", "b")): 6,
        (families.NODE_CLOCK_OFFSET, ("a",)): 0.0,
        (families.NODE_CLOCK_OFFSET, ("b",)): 1.5,
    }
