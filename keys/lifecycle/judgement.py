"""The judgement of a ring's condition, for readiness, ``keys status`` and ``keys doctor``."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from keys.lifecycle.rules import (
    find_active_key,
    find_next_key,
    has_signed,
    signing_candidates,
    succeeded_since,
)
from keys.signing_key import RingSnapshot


class Standing(StrEnum):
    """The present condition of a ring.

    ``UNPREPARED`` signs but has no standby. ``WAITING`` is the new ring of a move: its first key is
    published but not active yet, and another ring signs meanwhile. ``IDLE`` has no key that may
    sign, ``EMPTY`` no key at all.
    """

    SIGNING = "signing"
    UNPREPARED = "unprepared"
    SUCCEEDED = "succeeded"
    WAITING = "waiting"
    IDLE = "idle"
    EMPTY = "empty"


_NO_STANDBY = "there is no standby: the next rotation would break verifiers"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The condition of a ring, and its description."""

    standing: Standing
    detail: str

    @property
    def lacks_signer(self) -> bool:
        """Whether the ring cannot sign although it should."""
        return self.standing in {Standing.IDLE, Standing.EMPTY}


def judge_ring(ring: RingSnapshot, rings: Iterable[RingSnapshot], now: datetime) -> Judgement:
    """Return the condition of ``ring``, one of ``rings``, at ``now``."""
    if succeeded_since(ring, rings, now) is not None:
        return Judgement(Standing.SUCCEEDED, f"{ring.successor} signs in its place")
    if not ring.keys:
        return Judgement(Standing.EMPTY, "it has no keys yet: run `authz-server keys init`")
    if find_active_key(ring.keys, now) is None:
        return _judge_unsigned(ring, now)
    if find_next_key(ring.keys, now) is None:
        return Judgement(Standing.UNPREPARED, _NO_STANDBY)
    return Judgement(Standing.SIGNING, "a key signs and one stands by")


def _judge_unsigned(ring: RingSnapshot, now: datetime) -> Judgement:
    planned = [key.activate_at for key in signing_candidates(ring.keys) if key.activate_at]
    if not planned:
        return Judgement(Standing.IDLE, "no key may sign")
    first = f"{min(planned):%Y-%m-%dT%H:%M:%SZ}"
    if has_signed(ring.keys, now):
        return Judgement(Standing.IDLE, f"no key may sign before {first}")
    return Judgement(Standing.WAITING, f"its first key signs from {first}")
