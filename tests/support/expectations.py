"""The expected standing of a token at a moment, by the acts of operators and clients up to then.

An act is known to have happened when it was acknowledged; until then, or if it failed, it may or
may not have. Times are of one monotonic clock.
"""

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal

Worth = Literal["active", "inactive", "either"]


@dataclass(frozen=True)
class Act:
    """An act with its beginning and end; `blocks` None: it cannot be taken back."""

    started: float
    ended: float
    acknowledged: bool
    blocks: bool | None = None


@dataclass(frozen=True)
class KnownToken:
    """A token, when it was requested and received, and the names of what can end it.

    `origins` are the tokens that it was exchanged from, which end it as well.
    """

    text: str = field(repr=False)
    started: float
    ended: float
    names: frozenset[str]
    node: int
    kid: str = ""
    origins: tuple["KnownToken", ...] = ()


class Expectations:
    """Collects acts by the name of what they concern, such as ``client:ministry``."""

    def __init__(self) -> None:
        self._cuts: dict[str, list[Act]] = defaultdict(list)
        self._switches: dict[str, list[Act]] = defaultdict(list)
        self._lock = threading.Lock()

    def cut(self, name: str, act: Act) -> None:
        """Note what ends all tokens that were issued before it."""
        with self._lock:
            self._cuts[name].append(act)

    def switch(self, name: str, act: Act) -> None:
        """Note what blocks, or no longer blocks, whatever has the name."""
        with self._lock:
            self._switches[name].append(act)

    def is_blocked(self, names: frozenset[str], since: float, until: float) -> bool | None:
        """Return whether one of the names is blocked in that time; None: that is not certain."""
        states = [self._state(name, since, until) for name in names]
        return True if True in states else None if None in states else False

    def worth(self, token: KnownToken, since: float, until: float) -> Worth:
        """Return what an introspection in that time must say of the token."""
        states = [self.is_blocked(token.names, since, until)]
        states += [self._is_cut(name, token, since, until) for name in token.names]
        worths = [self.worth(origin, since, until) for origin in token.origins]
        if True in states or "inactive" in worths:
            return "inactive"
        return "either" if None in states or "either" in worths else "active"

    def reasons(self, token: KnownToken, since: float, until: float) -> list[str]:
        """Return the names that end the token, each with its origins', for a message."""
        found = [
            f"{name} {self._switches[name][-2:]} {self._cuts[name][-2:]}"
            for name in token.names
            if self._state(name, since, until) or self._is_cut(name, token, since, until)
        ]
        return found + [
            f"origin: {reason}"
            for origin in token.origins
            for reason in self.reasons(origin, since, until)
        ]

    def _state(self, name: str, since: float, until: float) -> bool | None:
        state: bool | None = False
        for act in self._switches[name]:
            if act.started >= until:
                break
            state = act.blocks if act.acknowledged and act.ended <= since else None
        return state

    def _is_cut(self, name: str, token: KnownToken, since: float, until: float) -> bool | None:
        state: bool | None = False
        for act in self._cuts[name]:
            if act.started >= until or act.ended <= token.started:
                continue
            if act.acknowledged and act.started >= token.ended and act.ended <= since:
                return True
            state = None
        return state
