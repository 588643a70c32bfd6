"""Samples of the key rings in the database."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from authz_server.metrics import definitions as families
from authz_server.metrics.definitions import Family
from keys.lifecycle.rules import find_active_key, signing_candidates, succeeded_since
from keys.signing_key import KeyState, RingSnapshot, SigningKey
from keys.store import NodeReport

#: Nodes report at least every 30 seconds; a node without a report for this time is gone.
NODE_SILENCE_SECONDS = 90


class Sample(NamedTuple):
    """One value of a metric, with the values of its labels in order."""

    family: Family
    labels: tuple[str, ...]
    value: float


def sample_rings(rings: Sequence[RingSnapshot], now: datetime) -> Iterator[Sample]:
    """Yield the samples of each ring; a succeeded ring has no active key."""
    for ring in rings:
        labels = (ring.name,)
        yield Sample(families.LATEST_EPOCH, labels, ring.epoch)
        succeeded = succeeded_since(ring, rings, now) is not None
        active = None if succeeded else find_active_key(ring.keys, now)
        for key in ring.keys:
            state = state_now(key, active)
            yield Sample(families.SIGNING_KEY_STATE, (ring.name, key.kid, state.value), 1)
        if active is not None and active.activate_at is not None:
            age = (now - active.activate_at).total_seconds()
            yield Sample(families.SIGNING_KEY_AGE, labels, age)
            yield Sample(families.ROTATION_INTERVAL, labels, ring.rotation_interval_seconds)
            yield from _sample_coming(ring, rings, now)


def _sample_coming(
    ring: RingSnapshot, rings: Sequence[RingSnapshot], now: datetime
) -> Iterator[Sample]:
    planned = [key.activate_at for key in signing_candidates(ring.keys) if key.activate_at]
    coming = [each for each in planned if each > now and not succeeded_since(ring, rings, each)]
    if coming:
        yield Sample(families.NEXT_ACTIVATION, (ring.name,), min(coming).timestamp())


def state_now(key: SigningKey, active: SigningKey | None) -> KeyState:
    """Return the state of a key at present; the database records it a little later."""
    if key == active:
        return KeyState.ACTIVE
    passed = active is not None and key.version < active.version and key.activate_at is not None
    if key.state is KeyState.ACTIVE or (key.state is KeyState.PUBLISHED and passed):
        return KeyState.RETIRED
    return key.state


def sample_nodes(reports: Iterable[NodeReport], now: datetime) -> Iterator[Sample]:
    """Yield the samples of nodes that are still running."""
    oldest = now - timedelta(seconds=NODE_SILENCE_SECONDS)
    offsets: dict[str, float] = {}
    for report in reports:
        if report.seen_at >= oldest:
            offsets[report.node] = report.clock_offset_seconds
            yield Sample(families.NODE_EPOCH, (report.ring, report.node), report.epoch_seen)
    for node, offset in offsets.items():
        yield Sample(families.NODE_CLOCK_OFFSET, (node,), offset)
