"""Connection limits by sender, and the choice of a connection to close for a new one."""

import ipaddress
from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from typing import Protocol

_IPV6_SENDER_BITS = 64


class Phase(IntEnum):
    """The phase of a connection; the lower, the less is lost by closing it."""

    CLOSING = 0
    IDLE = 1
    HEADER = 2
    BODY = 3
    ANSWERING = 4


class Evictable(Protocol):
    """A connection, as the limits use it.

    Attributes:
        phase: the phase of the connection.
        deadline: the time by which its peer must act.
        used: whether a request on it was answered.
    """

    phase: Phase
    deadline: float
    used: bool

    def evict(self) -> None:
        """Close the connection to make room for another, and dismiss it."""


class Sender:
    """The connections of one sender.

    Attributes:
        connections: the open connections.
        limited: whether the limits apply; trusted proxies are exempt.
    """

    __slots__ = ("connections", "limited", "name")

    def __init__(self, name: str, *, limited: bool) -> None:
        self.name = name
        self.connections: dict[Evictable, None] = {}
        self.limited = limited


class Senders:
    """All connections of a worker by sender; a new connection is always admitted.

    Beyond a limit, a connection that waits for its peer is closed. The order is: closing, never
    used, used. Among these: idle, waiting for a header, waiting for a body; then the longest wait.
    A sender with many open connections thus loses its own, and an honest sender at the same
    address is served.

    Args:
        maximum: the largest number of connections.
        maximum_each: the largest number of connections of one sender.
        maximum_bodies: the largest number of bodies in progress of one sender.
        is_exempt: returns whether an address belongs to a trusted proxy.

    Attributes:
        maximum: the largest number of connections.
    """

    def __init__(
        self,
        *,
        maximum: int,
        maximum_each: int,
        maximum_bodies: int,
        is_exempt: Callable[[str], bool],
    ) -> None:
        self.maximum = maximum
        self._maximum_each = maximum_each
        self._maximum_bodies = maximum_bodies
        self._is_exempt = is_exempt
        self._senders: dict[str, Sender] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def admit(self, connection: Evictable, address: str) -> Sender:
        """Add a connection; close another one if a limit is exceeded.

        Args:
            connection: the new connection.
            address: the peer's address.
        """
        # A proxy's neighbours in its network are not exempt.
        is_exempt = self._is_exempt(address)
        name = address if is_exempt else sender_of(address)
        sender = self._senders.get(name) or Sender(name, limited=not is_exempt)
        if sender.limited and len(sender.connections) >= self._maximum_each:
            _make_room(sender)
        elif self._count >= self.maximum:
            _make_room(max(self._senders.values(), key=_size))
        sender.connections[connection] = None
        # The evicted connection may have been the sender's last.
        self._senders[name] = sender
        self._count += 1
        return sender

    def dismiss(self, connection: Evictable, sender: Sender) -> None:
        """Remove a closed connection."""
        if sender.connections.pop(connection, self) is self:
            return
        self._count -= 1
        if not sender.connections and self._senders.get(sender.name) is sender:
            del self._senders[sender.name]

    def begin_body(self, connection: Evictable, sender: Sender) -> None:
        """Count a body in progress; close the oldest one if there are too many."""
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
    """Return the sort key of connections by how much is lost when they close."""
    closes = connection.phase is Phase.CLOSING
    return not closes, connection.used, connection.phase, connection.deadline


@lru_cache(maxsize=4_096)
def sender_of(address: str) -> str:
    """Return the network of one sender: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_SENDER_BITS), strict=False))
