"""Histories of tokens as clients saw them at several processes, and a check of their order.

A token is a register that is written once: issued, then perhaps ended. Times are of one monotonic
clock; what had no answer, or a 503, is «perhaps» and proves nothing.
"""

import math
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Operation = Literal["issue", "introspect", "revoke"]
Outcome = Literal["done", "active", "inactive", "perhaps"]


@dataclass(frozen=True)
class Entry:
    """One request: what was asked about which token, from when to when, and what came of it."""

    operation: Operation
    token_id: str
    started: float
    ended: float
    outcome: Outcome
    node: str = ""


class History:
    """Collects entries from many threads."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._lock = threading.Lock()

    def add(self, entry: Entry) -> None:
        """Note one request."""
        with self._lock:
            self.entries.append(entry)

    def contradictions(self) -> list[str]:
        """Return what cannot be true, in words; empty when everything fits together."""
        by_token: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            by_token[entry.token_id].append(entry)
        return [words for entries in by_token.values() for words in _check(entries)]


def _check(entries: list[Entry]) -> Iterator[str]:
    issued = [each for each in entries if each.operation == "issue" and each.outcome == "done"]
    if len(issued) > 1:
        yield f"{issued[0].token_id} was issued {len(issued)} times"
    revocations = [each for each in entries if each.operation == "revoke"]
    answers = [each for each in entries if each.operation == "introspect"]
    ended_at = _earliest_end(each for each in revocations if each.outcome == "done")
    seen_inactive_at = _earliest_end(each for each in answers if each.outcome == "inactive")
    first_attempt = min((each.started for each in revocations), default=math.inf)
    for answer in answers:
        if answer.outcome == "active" and answer.started > ended_at:
            yield f"active after its revocation: {answer}"
        elif answer.outcome == "active" and answer.started > seen_inactive_at:
            yield f"active after it had been inactive: {answer}"
        elif answer.outcome == "inactive" and answer.ended < first_attempt:
            yield f"inactive before anybody revoked it: {answer}"


def _earliest_end(entries: Iterable[Entry]) -> float:
    return min((entry.ended for entry in entries), default=math.inf)
