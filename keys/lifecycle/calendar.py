"""The calendar of a ring: when each key is published, active and accepted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from keys.lifecycle.rules import LIVE_STATES, PUBLIC_STATES, find_active_key, succeeded_since
from keys.lifecycle.timing import Timing
from keys.signing_key import KeyState, RingSnapshot, SigningKey

#: Keys that have left the JWKS are shown up to this total.
MAXIMUM_ROWS = 12
_FUTURE_SHARE = 0.35
_SHORTEST_WINDOW = timedelta(minutes=2)


class SpanKind(StrEnum):
    """The kinds of spans in the life of a key."""

    PUBLISHED = "published"
    SIGNS = "signs"
    VERIFIES = "verifies"
    TAINTED = "tainted"


#: The kinds of spans after a key has stopped signing.
_AFTERWARDS = frozenset({SpanKind.VERIFIES, SpanKind.TAINTED})


@dataclass(frozen=True, slots=True)
class Span:
    """A period in the life of a key; ``ends_at`` is None without a planned end."""

    kind: SpanKind
    begins_at: datetime
    ends_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarRow:
    """One key in the calendar.

    Attributes:
        key: the recorded key.
        signs: whether it is the active key.
        spans: its periods, in order.
        withdrawn_at: the time of its revocation.
    """

    key: SigningKey
    signs: bool
    spans: tuple[Span, ...]
    withdrawn_at: datetime | None


@dataclass(frozen=True, slots=True)
class Milestone:
    """A planned event: its time and description."""

    at: datetime
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """A ring over time.

    Attributes:
        ring: the ring as loaded.
        now: the present time.
        begins_at: the left edge of the picture.
        ends_at: the right edge.
        rows: the keys, lowest version first.
        milestones: the planned events, soonest first.
    """

    ring: RingSnapshot
    now: datetime
    begins_at: datetime
    ends_at: datetime
    rows: tuple[CalendarRow, ...]
    milestones: tuple[Milestone, ...]


def draw_calendar(
    ring: RingSnapshot, rings: Iterable[RingSnapshot], timing: Timing, now: datetime
) -> Calendar:
    """Return the recorded and planned calendar of ``ring``.

    Args:
        ring: the ring as loaded.
        rings: all rings.
        timing: the installation's durations.
        now: the present time.
    """
    left_at = succeeded_since(ring, rings, None)
    signs = left_at is None or left_at > now
    active = find_active_key(ring.keys, now) if signs else None
    rows = tuple(_row(ring, key, active, timing, left_at) for key in _shown(ring))
    begins_at, ends_at = _edges(rows, now)
    return Calendar(
        ring=ring,
        now=now,
        begins_at=begins_at,
        ends_at=ends_at,
        rows=rows,
        milestones=tuple(_milestones(ring, rows, left_at, now)),
    )


def _shown(ring: RingSnapshot) -> list[SigningKey]:
    """Return the keys in the JWKS, and the newest of the others up to the limit."""
    public = [key for key in ring.keys if key.state in PUBLIC_STATES]
    others = [key for key in ring.keys if key.state not in PUBLIC_STATES]
    room = max(MAXIMUM_ROWS - len(public), 1)
    return sorted([*others[-room:], *public], key=lambda key: key.version)


def _row(
    ring: RingSnapshot,
    key: SigningKey,
    active: SigningKey | None,
    timing: Timing,
    left_at: datetime | None,
) -> CalendarRow:
    return CalendarRow(
        key=key,
        signs=active is not None and key.kid == active.kid,
        spans=tuple(_spans(ring, key, timing, left_at)),
        withdrawn_at=key.revoked_at,
    )


def _spans(
    ring: RingSnapshot, key: SigningKey, timing: Timing, left_at: datetime | None
) -> list[Span]:
    if key.published_at is None:
        return []
    stops_at = _stops_at(ring, key, left_at)
    leaves_at = _leaves_at(ring, key, stops_at, timing)
    begins_at = key.activate_at
    if begins_at is None or (stops_at is not None and stops_at <= begins_at):
        spans = [Span(SpanKind.PUBLISHED, key.published_at, stops_at)]
    else:
        spans = [
            Span(SpanKind.PUBLISHED, key.published_at, begins_at),
            Span(SpanKind.SIGNS, begins_at, stops_at),
        ]
    if stops_at is not None:
        after = SpanKind.TAINTED if key.state is KeyState.TAINTED else SpanKind.VERIFIES
        spans.append(Span(after, stops_at, leaves_at))
    return [span for span in spans if span.ends_at is None or span.ends_at > span.begins_at]


def _stops_at(ring: RingSnapshot, key: SigningKey, left_at: datetime | None) -> datetime | None:
    """Return when the key stopped signing, or will by the plan."""
    if key.stopped_at is not None:
        return key.stopped_at
    later = [
        other.activate_at
        for other in ring.keys
        if other.version > key.version
        and other.state in LIVE_STATES
        and other.activate_at is not None
    ]
    ends = [*later, *([left_at] if left_at is not None else [])]
    return min(ends, default=None) if key.state in LIVE_STATES else None


def _leaves_at(
    ring: RingSnapshot, key: SigningKey, stops_at: datetime | None, timing: Timing
) -> datetime | None:
    if key.revoked_at is not None:
        return key.revoked_at
    if key.remove_after is not None or stops_at is None:
        return key.remove_after
    return timing.remove_after(ring.maximum_lifetime_seconds, stops_at, None)


def _edges(rows: Sequence[CalendarRow], now: datetime) -> tuple[datetime, datetime]:
    """Return the edges: all of the past, and enough of the future for the plans.

    For a ring that is much younger than the longest lifetime of a token, the period in which its
    keys still verify is cut off; otherwise the ring would shrink to nothing.
    """
    spans = [span for row in rows for span in row.spans]
    begins_at = min([now, *(span.begins_at for span in spans)])
    past = max(now - begins_at, _SHORTEST_WINDOW)
    moments = [span.begins_at for span in spans]
    for span in spans:
        is_far = span.kind in _AFTERWARDS and span.ends_at is not None and span.ends_at > now + past
        if span.ends_at is not None and not is_far:
            moments.append(span.ends_at)
    ends_at = max([now + past * _FUTURE_SHARE, *moments])
    margin = (ends_at - begins_at) * 0.02
    return begins_at - margin, ends_at + margin


def _milestones(
    ring: RingSnapshot, rows: Sequence[CalendarRow], left_at: datetime | None, now: datetime
) -> list[Milestone]:
    planned = []
    for row in rows:
        name = f"version {row.key.version}"
        for span in row.spans:
            if span.kind is SpanKind.SIGNS and span.begins_at > now:
                planned.append(Milestone(span.begins_at, f"{name} begins to sign"))
            leaves = span.kind in _AFTERWARDS
            if leaves and span.ends_at is not None and span.ends_at > now:
                planned.append(Milestone(span.ends_at, f"{name} leaves the JWKS"))
    if left_at is not None and left_at > now:
        planned.append(Milestone(left_at, f"{ring.successor} signs in its place"))
    if ring.cautious_until is not None and ring.cautious_until > now:
        planned.append(Milestone(ring.cautious_until, "verifiers may keep the JWKS longer again"))
    return sorted(planned, key=lambda each: each.at)
