"""A ring that succeeds another: when it can take over, and how a freeze cancels that."""

from datetime import datetime, timedelta

from keys.errors import OrderRefusedError
from keys.lifecycle.plan import Draft, Wait
from keys.lifecycle.rules import find_active_key, succeeded_since
from keys.lifecycle.state import ObservedState
from keys.signing_key import RingSnapshot


def earliest_succession(state: ObservedState, successor: RingSnapshot) -> datetime:
    """Return when verifiers certainly know the first planned key of ``successor``.

    Raises:
        OrderRefusedError: none of its keys is planned to sign.
    """
    ring, now = state.ring, state.now
    first = find_active_key(successor.keys, now) or next(
        (key for key in successor.keys if key.activate_at is not None and key.activate_at > now),
        None,
    )
    if first is None or first.published_at is None or first.activate_at is None:
        raise OrderRefusedError(f"{successor.name} has no key that is planned to sign")
    # A ring without pre-publication has disabled the minimum.
    minimum = state.timing.minimum_prepublication_seconds if ring.prepublication_seconds else 0
    published = timedelta(seconds=max(ring.prepublication_seconds, minimum))
    return max(now, first.activate_at, first.published_at + published)


def freeze_ring(draft: Draft, reason: str, imminent: datetime) -> None:
    """Freeze the ring, and cancel its move to another one unless that happens by ``imminent``."""
    state, ring = draft.state, draft.state.ring
    left_at = succeeded_since(ring, state.others, imminent)
    if ring.succeeded_at is None or left_at is not None:
        draft.change_ring("ring.frozen", reason, frozen=True)
        if left_at is not None and left_at > state.now:
            why = "too near for every node to learn otherwise"
            draft.waits.append(Wait(f"{ring.successor} signs instead", left_at, why))
        return
    draft.change_ring(
        "ring.frozen",
        f"{reason} (the move to {ring.successor} is cancelled)",
        frozen=True,
        successor=None,
        succeeded_at=None,
    )
