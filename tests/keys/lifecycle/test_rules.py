"""The pure rules: who signs, who is published, how a ring begins."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from keys.backend import Version
from keys.jose.jwk import public_jwk, thumbprint
from keys.lifecycle.first_key import plan_first_keys
from keys.lifecycle.rules import find_active_key, public_keys, signing_candidates
from keys.signing_key import KeyState, RingDefinition, SigningKey

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DEFINITION = RingDefinition(name="ring", alg="ES256", backend_uri="sql://")


def make_key(version, state, activates_in_seconds=None):
    activate_at = None
    if activates_in_seconds is not None:
        activate_at = NOW + timedelta(seconds=activates_in_seconds)
    return SigningKey(
        ring="ring",
        version=version,
        kid=f"kid-{version}",
        alg="ES256",
        public_jwk={},
        state=state,
        created_at=NOW,
        activate_at=activate_at,
    )


key_lists = st.lists(
    st.builds(
        make_key,
        st.integers(1, 50),
        st.sampled_from(KeyState),
        st.none() | st.integers(-100, 100),
    ),
    unique_by=lambda key: key.version,
)


@given(key_lists)
def test_the_active_key_is_the_highest_live_version_whose_time_has_come(keys):
    active = find_active_key(keys, NOW)
    due = [
        key
        for key in keys
        if key.state in {KeyState.PUBLISHED, KeyState.ACTIVE}
        and key.activate_at is not None
        and key.activate_at <= NOW
    ]
    assert active == max(due, key=lambda key: key.version, default=None)


@given(key_lists)
def test_whatever_can_sign_is_published(keys):
    assert {key.kid for key in signing_candidates(keys)} <= {key.kid for key in public_keys(keys)}


@given(key_lists, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(keys, random):
    shuffled = list(keys)
    random.shuffle(shuffled)
    assert find_active_key(shuffled, NOW) == find_active_key(keys, NOW)
    assert public_keys(shuffled) == public_keys(keys)


@pytest.mark.parametrize(
    ("state", "public"),
    [
        (KeyState.PUBLISHED, True),
        (KeyState.ACTIVE, True),
        (KeyState.RETIRED, True),
        (KeyState.TAINTED, True),
        (KeyState.REMOVED, False),
        (KeyState.DESTROYED, False),
        (KeyState.REVOKED, False),
    ],
)
def test_which_states_are_published(state, public):
    assert bool(public_keys([make_key(1, state, 0)])) is public


def test_a_change_over_needs_nobody():
    keys = [make_key(1, KeyState.ACTIVE, -1000), make_key(2, KeyState.PUBLISHED, 10)]
    assert find_active_key(keys, NOW).version == 1
    assert find_active_key(keys, NOW + timedelta(seconds=9, microseconds=999_999)).version == 1
    assert find_active_key(keys, NOW + timedelta(seconds=10)).version == 2


def test_a_standby_without_a_planned_time_never_signs():
    keys = [make_key(1, KeyState.ACTIVE, -1), make_key(2, KeyState.PUBLISHED)]
    assert find_active_key(keys, NOW + timedelta(days=10_000)).version == 1


def test_the_first_version_signs_at_once_and_the_others_wait():
    versions = [
        Version(str(n), public_jwk(ec.generate_private_key(ec.SECP256R1())), NOW) for n in (1, 2, 3)
    ]
    first, *others = plan_first_keys(DEFINITION, versions, NOW, "operator")
    assert (first.event, first.key.state, first.key.activate_at) == (
        "key.activated",
        KeyState.ACTIVE,
        NOW,
    )
    assert "first key" in first.reason
    assert [change.key.version for change in others] == [2, 3]
    assert all(change.key.state is KeyState.PUBLISHED for change in others)
    assert all(change.key.activate_at is None for change in others)
    for change, version in zip([first, *others], versions, strict=True):
        assert change.key.kid == thumbprint(version.jwk)
        assert (change.key.published_at, change.at, change.actor) == (NOW, NOW, "operator")
