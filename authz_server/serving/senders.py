"""How much of a worker's room each sender takes, and which connection makes room for a new one."""

import ipaddress
from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from typing import Protocol

_IPV6_SENDER_BITS = 64


class Phase(IntEnum):
    """The phase of a connection. The lower it is, the less is lost by cutting it."""

    CLOSING = 0
    IDLE = 1
    HEADER = 2
    BODY = 3
    ANSWERING = 4


class Evictable(Protocol):
    """A connection as the limits see it.

    Attributes:
        phase: what it is doing.
        deadline: when its peer has to have done something.
        used: whether a request on it was answered.
    """

    phase: Phase
    deadline: float
    used: bool

    def evict(self) -> None:
        """Cut the connection to make room for another, and have it dismissed."""


class Sender:
    """One sender's connections.

    Attributes:
        connections: those that are open.
        limited: whether the limits apply; they do not to trusted proxies.
    """

    __slots__ = ("connections", "limited", "name")

    def __init__(self, name: str, *, limited: bool) -> None:
        self.name = name
        self.connections: dict[Evictable, None] = {}
        self.limited = limited


class Senders:
    """Every connection of a worker by its sender; a new connection always gets in.

    Beyond a limit a connection closes that waits for its peer: first one that is closing, then one
    that was never used, then one that was. Of these an idle one closes first, then one whose
    header, then one whose body has not arrived; of several alike the one that has waited longest.
    So a sender that holds many connections open loses its own, and an honest one at the same
    address is served.

    Args:
        maximum: the most connections in all.
        maximum_each: the most connections of one sender.
        maximum_bodies: the most bodies of one sender that have begun and not ended.
        is_exempt: returns whether an address is that of a trusted proxy.
    """

    def __init__(
        self,
        *,
        maximum: int,
        maximum_each: int,
        maximum_bodies: int,
        is_exempt: Callable[[str], bool],
    ) -> None:
        self._maximum = maximum
        self._maximum_each = maximum_each
        self._maximum_bodies = maximum_bodies
        self._is_exempt = is_exempt
        self._senders: dict[str, Sender] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def admit(self, connection: Evictable, address: str) -> Sender:
        """Count a new connection; close another where that is one too many.

        Args:
            connection: the new one.
            address: of its peer.
        """
        name = sender_of(address)
        sender = self._senders.get(name) or Sender(name, limited=not self._is_exempt(address))
        if sender.limited and len(sender.connections) >= self._maximum_each:
            _make_room(sender)
        elif self._count >= self._maximum:
            _make_room(max(self._senders.values(), key=_size))
        sender.connections[connection] = None
        # The one that made room may have been its last.
        self._senders[name] = sender
        self._count += 1
        return sender

    def dismiss(self, connection: Evictable, sender: Sender) -> None:
        """Forget a connection that has closed."""
        if sender.connections.pop(connection, self) is self:
            return
        self._count -= 1
        if not sender.connections and self._senders.get(sender.name) is sender:
            del self._senders[sender.name]

    def begin_body(self, connection: Evictable, sender: Sender) -> None:
        """Note that a body has begun and not ended; close the oldest of too many."""
        if not sender.limited or len(sender.connections) <= self._maximum_bodies:
            return
        bodies = [each for each in sender.connections if each.phase is Phase.BODY]
        if len(bodies) > self._maximum_bodies:
            others = (each for each in bodies if each is not connection)
            min(others, key=_loss).evict()


def _size(sender: Sender) -> int:
    return len(sender.connections) if sender.limited else 0


def _make_room(sender: Sender) -> None:
    waiting = [each for each in sender.connections if each.phase is not Phase.ANSWERING]
    if waiting:
        min(waiting, key=_loss).evict()


def _loss(connection: Evictable) -> tuple[bool, bool, Phase, float]:
    """Return what orders connections by how much is lost when they close."""
    closes = connection.phase is Phase.CLOSING
    return not closes, connection.used, connection.phase, connection.deadline


@lru_cache(maxsize=4_096)
def sender_of(address: str) -> str:
    """Return the network that counts as one sender: an IPv4 address, or the /64 of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_SENDER_BITS), strict=False))
