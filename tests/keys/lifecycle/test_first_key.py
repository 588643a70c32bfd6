"""The first keys are made once, by a command, whatever happens in between."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from keys.errors import BackendUnavailable, KeysError, NoActiveKeyError
from keys.lifecycle.first_key import create_first_key
from keys.signing_key import KeyState, RingDefinition

DEFINITION = RingDefinition(name="ES256", alg="ES256", backend_uri="sql://")


def create(ring_set, definition=DEFINITION):
    return create_first_key(
        ring_set.store, ring_set.backend, definition, clock=ring_set.clock, actor="operator:a"
    )


def test_one_key_signs_at_once_and_one_is_kept_ready(empty_ring_set):
    assert create(empty_ring_set)
    first, standby = empty_ring_set.store.rings["ES256"].keys
    assert (first.state, first.activate_at) == (KeyState.ACTIVE, empty_ring_set.clock())
    assert (standby.state, standby.activate_at) == (KeyState.PUBLISHED, None)
    assert [event.event for event in empty_ring_set.store.events] == [
        "key.activated",
        "key.published",
    ]


def test_a_second_time_changes_nothing(ring_set):
    before = ring_set.store.rings["ES256"]
    assert not create(ring_set)
    assert not create(ring_set, replace(DEFINITION, alg="RS256"))
    assert ring_set.store.rings["ES256"] == before
    assert len(ring_set.storage.keys) == 2


def test_what_a_broken_off_run_left_is_adopted(empty_ring_set):
    empty_ring_set.store.add_ring(DEFINITION)
    left = empty_ring_set.backend.create("ES256", "ES256")
    assert create(empty_ring_set)
    assert empty_ring_set.store.rings["ES256"].keys[0].public_jwk == left.jwk
    assert len(empty_ring_set.storage.keys) == 2


def test_an_empty_ring_of_another_algorithm_is_not_filled(empty_ring_set):
    empty_ring_set.store.add_ring(replace(DEFINITION, alg="RS256"))
    with pytest.raises(KeysError, match="exists for RS256"):
        create(empty_ring_set)
    assert empty_ring_set.storage.keys == []


def test_an_unknown_algorithm_is_refused_by_name(empty_ring_set):
    with pytest.raises(KeysError, match="'HS256' is not a supported signature algorithm"):
        create(empty_ring_set, replace(DEFINITION, alg="HS256"))


def test_a_backend_that_is_away_leaves_an_empty_ring_to_be_filled_later(empty_ring_set):
    def unreachable(_key):
        raise BackendUnavailable("away", retry_after=5)

    add, empty_ring_set.storage.add = empty_ring_set.storage.add, unreachable
    with pytest.raises(BackendUnavailable):
        create(empty_ring_set)
    empty_ring_set.rings.refresh()
    with pytest.raises(NoActiveKeyError):
        empty_ring_set.rings.sign("ES256", b"{}", typ="at+jwt", lifetime_seconds=1)
    empty_ring_set.storage.add = add
    assert create(empty_ring_set)


def test_of_many_at_once_one_fills_the_ring(empty_ring_set):
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: create(empty_ring_set), range(8)))
    assert sum(outcomes) == 1
    keys = empty_ring_set.store.rings["ES256"].keys
    assert [key.state for key in keys].count(KeyState.ACTIVE) == 1
    assert keys[0].version == 1
