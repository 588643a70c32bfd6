"""Follows a ring through its rotations, and says of each key what came of its tokens."""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from threading import Event, Thread
from typing import Any

from keys.lifecycle.rules import find_active_key
from keys.signing_key import SigningKey
from rotation_demo.installation import Installation
from rotation_demo.ledger import KeyAccount, Ledger
from rotation_demo.verifiers import VerifierProcess

PAUSE_SECONDS = 0.25
#: A rotation that takes so much longer than planned does not come any more.
LATE_SECONDS = 45.0
#: So many refusals of one key are written down.
SHOWN_REFUSALS = 20
HEADING = (
    "rotation  version        signs from      change-over after that, s"
    "   its tokens    verified   refused"
)


class RotationOverdueError(Exception):
    """The ring did not move on."""


class Rotations:
    """The change-overs seen so far, in order; the first key is no rotation.

    Args:
        installation: Whose ring it is.
        ledger: What happened to the tokens.
        verifiers: Who verifies.
    """

    def __init__(
        self, installation: Installation, ledger: Ledger, verifiers: Sequence[VerifierProcess]
    ) -> None:
        self.seen: list[SigningKey] = []
        self.told = 0
        self._installation = installation
        self._ledger = ledger
        self._names = tuple(verifier.name for verifier in verifiers)
        self._ended = Event()
        self._watcher = Thread(target=self._watch, name="watches the ring", daemon=True)

    @property
    def number(self) -> int:
        """How many change-overs there were."""
        return max(len(self.seen) - 1, 0)

    def start(self) -> None:
        """Begin to watch the ring."""
        self._look()
        self._watcher.start()

    def end(self) -> None:
        """Watch no more."""
        self._ended.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._ended.wait(PAUSE_SECONDS):
            self._look()

    def _look(self) -> None:
        ring = self._installation.ring()
        active = find_active_key(ring.keys, ring.loaded_at)
        if active is not None and (not self.seen or self.seen[-1].kid != active.kid):
            self.seen.append(active)

    def await_number(self, wanted: int) -> Iterator[SigningKey]:
        """Yield each key whose tokens have all expired, until there were ``wanted`` change-overs.

        Raises:
            RotationOverdueError: the ring does not move on.
        """
        late = self._installation.plan.clock.rotation_seconds + LATE_SECONDS
        number, deadline = self.number, time.monotonic() + late
        while self.number < wanted:
            yield from self.finished()
            if self.number > number:
                number, deadline = self.number, time.monotonic() + late
            if time.monotonic() > deadline:
                raise RotationOverdueError(f"after {number} rotations the ring stood still")
            time.sleep(PAUSE_SECONDS)

    def finished(self) -> Iterator[SigningKey]:
        """Yield each key, once, that signs no more and whose tokens have all expired."""
        while self.told < self.number:
            key, follower = self.seen[self.told], self.seen[self.told + 1]
            left = self._is_left(follower)
            if not left or not self._ledger.is_finished(key.kid, self._names):
                return
            self.told += 1
            yield key

    def rest(self) -> Iterator[SigningKey]:
        """Yield the keys that were not yielded yet."""
        while self.told < len(self.seen):
            self.told += 1
            yield self.seen[self.told - 1]

    def _is_left(self, follower: SigningKey) -> bool:
        """Tell whether every node has begun to sign with the next key."""
        nodes = {node.name for node in self._installation.nodes}
        return nodes <= self._ledger.account(follower.kid).issued_at.keys()


def change_over_seconds(
    account: KeyAccount, signs_from: datetime, nodes: Sequence[str]
) -> dict[str, float]:
    """Return how long after ``signs_from`` each node's first token by the key came, if it came."""
    begins = signs_from.timestamp()
    first = account.first_since(begins)
    return {node: first[node] - begins for node in nodes if node in first}


def in_words(number: int, key: SigningKey, account: KeyAccount, nodes: Sequence[str]) -> str:
    """Return the line of one key: its tokens, and how often they were verified and refused."""
    begins = key.activate_at or key.created_at
    after = change_over_seconds(account, begins, nodes) if number else {}
    took = "  ".join(f"{seconds:5.2f}" for seconds in after.values()) or "the first key"
    clock = f"{begins:%H:%M:%S}.{begins.microsecond // 1_000:03}"
    return (
        f"{number:8}  v{key.version:<3} {key.kid[:7]}   {clock}"
        f"{took:>29}{account.tokens:>13,}{sum(account.checks.values()):>12,}"
        f"{sum(account.refused_by().values()):>10,}"
    )


def as_record(
    number: int, key: SigningKey, account: KeyAccount, nodes: Sequence[str]
) -> dict[str, Any]:
    """Return the same for the report."""
    begins = key.activate_at or key.created_at
    return {
        "rotation": number,
        "version": key.version,
        "kid": key.kid,
        "signs_from": begins.isoformat(),
        "change_over_seconds": change_over_seconds(account, begins, nodes),
        "tokens": {node: len(times) for node, times in account.issued_at.items()},
        "verified": dict(account.checks),
        "refused": account.refused_by(),
        "refusals": [
            {"verifier": verifier, "seconds_after_change_over": at - begins.timestamp(), "why": why}
            for verifier, tokens in account.refused.items()
            for at, why in tokens.values()
        ][:SHOWN_REFUSALS],
    }
