from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.lifecycle.calendar import MAXIMUM_ROWS, SpanKind, draw_calendar
from keys.lifecycle.timing import Timing
from keys.signing_key import KeyState, RingSnapshot, SigningKey

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
TIMING = Timing()
PUBLISHED, SIGNS = SpanKind.PUBLISHED, SpanKind.SIGNS
VERIFIES, TAINTED = SpanKind.VERIFIES, SpanKind.TAINTED


def days(count):
    return NOW + timedelta(days=count)


def key(version, state, **times):
    return SigningKey(
        ring="es256",
        version=version,
        kid=f"kid-{version}",
        alg="ES256",
        public_jwk={},
        state=state,
        created_at=days(-99),
        **times,
    )


def ring(*keys, **fields):
    return RingSnapshot(
        name="es256",
        alg="ES256",
        backend_uri="sql://",
        epoch=7,
        keys=keys,
        loaded_at=NOW,
        **fields,
    )


def draw(*keys, **fields):
    drawn = ring(*keys, **fields)
    return draw_calendar(drawn, (drawn,), TIMING, NOW)


RETIRED = key(
    1,
    KeyState.RETIRED,
    published_at=days(-40),
    activate_at=days(-30),
    stopped_at=days(-1),
    remove_after=days(1),
)
ACTIVE = key(2, KeyState.ACTIVE, published_at=days(-30), activate_at=days(-1))
STANDBY = key(3, KeyState.PUBLISHED, published_at=days(-1), activate_at=days(29))


def kinds(row):
    return [(span.kind, span.begins_at, span.ends_at) for span in row.spans]


def test_each_key_is_published_then_signs_then_verifies():
    retired, active, standby = draw(RETIRED, ACTIVE, STANDBY).rows
    assert kinds(retired) == [
        (PUBLISHED, days(-40), days(-30)),
        (SIGNS, days(-30), days(-1)),
        (VERIFIES, days(-1), days(1)),
    ]
    # It stops when the standby takes over, and leaves once its last token has expired.
    leaves_at = TIMING.remove_after(3600, days(29), None)
    assert kinds(active) == [
        (PUBLISHED, days(-30), days(-1)),
        (SIGNS, days(-1), days(29)),
        (VERIFIES, days(29), leaves_at),
    ]
    assert kinds(standby) == [(PUBLISHED, days(-1), days(29)), (SIGNS, days(29), None)]
    assert [row.signs for row in (retired, active, standby)] == [False, True, False]


def test_who_signs_follows_from_time_and_not_from_the_record():
    late = replace(STANDBY, activate_at=NOW)
    rows = draw(ACTIVE, late).rows
    assert [row.signs for row in rows] == [False, True]
    assert kinds(rows[0])[1] == (SIGNS, days(-1), NOW)


def test_a_key_without_a_plan_is_published_without_end():
    (row,) = draw(replace(STANDBY, activate_at=None)).rows
    assert kinds(row) == [(PUBLISHED, days(-1), None)]


def test_a_tainted_key_goes_on_verifying():
    tainted = replace(RETIRED, state=KeyState.TAINTED)
    (row,) = draw(tainted).rows
    assert kinds(row)[-1] == (TAINTED, days(-1), days(1))


def test_a_revoked_key_ends_when_it_was_revoked():
    revoked = replace(ACTIVE, state=KeyState.REVOKED, stopped_at=days(-0.5), revoked_at=days(-0.25))
    (row,) = draw(revoked).rows
    assert kinds(row)[-1] == (VERIFIES, days(-0.5), days(-0.25))
    assert row.withdrawn_at == days(-0.25)
    assert row.signs is False


def test_a_key_revoked_before_it_signed_never_did():
    revoked = replace(STANDBY, state=KeyState.REVOKED, stopped_at=days(-0.5), revoked_at=days(-0.5))
    (row,) = draw(revoked).rows
    assert kinds(row) == [(PUBLISHED, days(-1), days(-0.5))]


def test_a_ring_that_is_succeeded_signs_no_more():
    planned = draw(ACTIVE, successor="rs256", succeeded_at=days(2))
    assert kinds(planned.rows[0])[1] == (SIGNS, days(-1), days(2))
    assert planned.rows[0].signs is True
    assert any("rs256 signs in its place" in each.what for each in planned.milestones)
    assert draw(ACTIVE, successor="rs256", succeeded_at=days(-0.5)).rows[0].signs is False


def test_what_is_planned_is_told_soonest_first():
    milestones = draw(RETIRED, ACTIVE, STANDBY, cautious_until=days(0.5)).milestones
    assert [each.what for each in milestones] == [
        "verifiers may keep the JWKS longer again",
        "version 1 leaves the JWKS",
        "version 3 begins to sign",
        "version 2 leaves the JWKS",
    ]
    assert [each.at for each in milestones] == sorted(each.at for each in milestones)


def test_old_keys_make_room_and_no_public_one_does():
    old = [
        key(version, KeyState.REMOVED, published_at=days(-90), stopped_at=days(-80))
        for version in range(1, 30)
    ]
    public = [replace(RETIRED, version=version, kid=f"kid-{version}") for version in range(30, 44)]
    rows = draw(*old, *public).rows
    assert [row.key.version for row in rows] == [29, *range(30, 44)]
    few = draw(*old, ACTIVE).rows
    assert len(few) == MAXIMUM_ROWS


def test_a_ring_without_keys_has_an_empty_calendar():
    empty = draw()
    assert (empty.rows, empty.milestones) == ((), ())
    assert empty.begins_at < NOW < empty.ends_at


@pytest.mark.parametrize("age", [timedelta(seconds=1), timedelta(days=2000)])
def test_now_and_what_is_planned_are_within_the_picture(age):
    begun = NOW - age
    active = replace(ACTIVE, published_at=begun, activate_at=begun)
    calendar = draw(active, replace(STANDBY, published_at=begun))
    assert calendar.begins_at < begun
    assert calendar.begins_at < NOW < calendar.ends_at
    assert STANDBY.activate_at < calendar.ends_at


moments = st.one_of(st.none(), st.integers(-1000, 1000).map(days))


@given(
    st.lists(
        st.tuples(st.sampled_from(KeyState), moments, moments, moments, moments, moments),
        max_size=6,
    )
)
def test_any_record_gives_spans_in_order_within_the_picture(drawn):
    keys = [
        key(
            version,
            state,
            published_at=published_at,
            activate_at=activate_at,
            stopped_at=stopped_at,
            remove_after=remove_after,
            revoked_at=revoked_at,
        )
        for version, (state, published_at, activate_at, stopped_at, remove_after, revoked_at) in (
            enumerate(drawn, start=1)
        )
    ]
    calendar = draw(*keys)
    assert calendar.begins_at < calendar.ends_at
    for row in calendar.rows:
        for span in row.spans:
            assert span.ends_at is None or span.begins_at < span.ends_at
            assert calendar.begins_at < span.begins_at < calendar.ends_at
