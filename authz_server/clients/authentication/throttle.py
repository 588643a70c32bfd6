"""Throttles failed authentications, counted for each pair of client id and network."""

import ipaddress
import threading
from collections import OrderedDict
from functools import lru_cache
from math import ceil

from authz_server.clients.counters.shared import SharedCounters

MAXIMUM_PAIRS = 20_000
#: The ids of one network that a process counts apart in a store within a window.
MAXIMUM_IDS_OF_NETWORK = 100
# One more than an id can have; longer ids share the entry of their beginning.
MAXIMUM_ID_CHARACTERS = 129
_IPV6_PREFIX = 64
_LONGEST_ADDRESS = 64
# Stands for the further ids of a network; a counted id has no colon.
_OTHER_IDS = ":"


@lru_cache(1_024)
def network_of(address: str) -> str:
    """Return the network under which a sender is counted.

    One IPv6 subscriber has at least a /64 (RFC 6177) and can send from each address in it.

    Args:
        address: the sender's IP address; another text is returned, cut to 64 characters.

    Returns:
        an IPv4 address, or the /64 of an IPv6 address, such as ``2001:db8::/64``. An IPv4-mapped
        IPv6 address counts as IPv4.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:_LONGEST_ADDRESS]
    mapped = getattr(parsed, "ipv4_mapped", None)
    if mapped is not None or isinstance(parsed, ipaddress.IPv4Address):
        return str(mapped or parsed)
    return str(ipaddress.IPv6Network((int(parsed), _IPV6_PREFIX), strict=False))


class FailureThrottle:
    """Counts failures of a pair of client id and network within a window.

    The count decides how a failure is answered. It does not affect the right secret, so that
    failures behind a shared address, such as that of a proxy, cannot lock a client out.

    Each process keeps its own counts in memory, for a limited number of pairs;
    :class:`SharedFailures` counts over all processes.

    Args:
        failures: the failures of a pair within the window that are answered without a wait.
        window_seconds: the length of the window, from the first failure of the pair.
    """

    def __init__(self, failures: int, window_seconds: int) -> None:
        self._failures = failures
        self._window_seconds = window_seconds
        self._pairs: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()
        self._lock = threading.Lock()

    def seconds_to_wait(self, client_id: str, address: str, now: float) -> int:
        """Return the seconds that the sender of a failure has to wait; 0 below the limit.

        Args:
            client_id: the claimed client id.
            address: the sender's IP address.
            now: seconds since 1970 UTC.
        """
        found = self._pairs.get(_pair(client_id, address))
        if found is None or found[0] < self._failures or not self._holds(found, now):
            return 0
        return int(found[1] + self._window_seconds - now) + 1

    def count_failure(self, client_id: str, address: str, now: float) -> int:
        """Count a failure; return the seconds that its sender has to wait, 0 below the limit.

        The arguments are those of :meth:`seconds_to_wait`. The wait depends on the failures before
        this one.
        """
        pair = _pair(client_id, address)
        with self._lock:
            found = self._pairs.pop(pair, None)
            if found is None or not self._holds(found, now):
                found = (0, now)
            self._pairs[pair] = (found[0] + 1, found[1])
            while len(self._pairs) > MAXIMUM_PAIRS:
                self._pairs.popitem(last=False)
        if found[0] < self._failures:
            return 0
        return int(found[1] + self._window_seconds - now) + 1

    def _holds(self, found: tuple[int, float], now: float) -> bool:
        return 0 <= now - found[1] < self._window_seconds


class _SharedPairs:
    """Bounds the pairs that a process counts in a store within a window.

    Each new pair makes an entry in the store, and senders invent ids and use many networks.

    Args:
        window_seconds: the length of the window.
    """

    def __init__(self, window_seconds: int) -> None:
        self._window_seconds = window_seconds
        self._began = float("-inf")
        self._ids: dict[str, set[str]] = {}
        self._number = 0
        self._lock = threading.Lock()

    def find(self, client_id: str, network: str, now: float) -> str | None:
        """Return the id under which a failure is counted; None: there is no room for the pair."""
        with self._lock:
            if not 0 <= now - self._began < self._window_seconds:
                self._began, self._ids, self._number = now, {}, 0
            ids = self._ids.get(network, set())
            if client_id not in ids and len(ids) >= MAXIMUM_IDS_OF_NETWORK:
                client_id = _OTHER_IDS
            if client_id not in ids:
                if self._number >= MAXIMUM_PAIRS:
                    return None
                self._number += 1
                self._ids.setdefault(network, ids).add(client_id)
        return client_id


class SharedFailures:
    """Counts the failures of a pair over all processes and nodes.

    The further ids of a network with many are counted together. Beyond a number of pairs, the
    process alone counts.

    Args:
        counters: the shared counts.
        failures: the failures of a pair within the window that are answered without a wait.
        window_seconds: the length of the window, from the first failure of the pair.
        kind: keeps counts of another kind apart.
    """

    def __init__(
        self, counters: SharedCounters, failures: int, window_seconds: int, kind: str = "failure"
    ) -> None:
        self._counters = counters
        self._failures = failures
        self._window_seconds = window_seconds
        self._kind = kind
        self._pairs = _SharedPairs(window_seconds)

    async def count_failure(self, client_id: str, address: str, now: float) -> int:
        """Count a failure; return the seconds that its sender has to wait, 0 below the limit.

        The arguments are those of :meth:`FailureThrottle.seconds_to_wait`. Without the store, or
        room in it, the result is 0: the throttle of this process alone then decides.
        """
        claimed, network = _pair(client_id, address)
        client = self._pairs.find(claimed, network, now)
        if client is None:
            self._counters.note_alone()
            return 0
        ends_at = ceil(now) + self._window_seconds
        count = await self._counters.add(self._kind, client, network, now=now, ends_at=ends_at)
        if count is None or count.number <= self._failures:
            return 0
        return max(1, ceil(count.ends_at - now))


class RequestLimit:
    """Limits the requests of each network within a window.

    Args:
        requests: the requests of a network that are accepted within the window.
        window_seconds: the length of the window, from the first request of the network.
        counters: the shared counts; None: each process counts for itself.
        kind: the name of the limit in the shared counts.
    """

    def __init__(
        self, requests: int, window_seconds: int, counters: SharedCounters | None, kind: str
    ) -> None:
        self._own = FailureThrottle(requests, window_seconds)
        self._shared = (
            None if counters is None else SharedFailures(counters, requests, window_seconds, kind)
        )

    async def count(self, address: str, now: float) -> int:
        """Count a request; return the seconds that its sender has to wait, 0 within the limit.

        Args:
            address: the sender's IP address.
            now: seconds since 1970 UTC.
        """
        wait = self._own.count_failure("", address, now)
        if not wait and self._shared is not None:
            wait = await self._shared.count_failure("", address, now)
        return wait


def counted_id(client_id: str) -> str:
    """Return the part of a claimed id for which attempts are counted: up to its first colon.

    Where else an undecoded Basic header is split depends on which ids are registered. The counts
    must not show it.
    """
    return client_id.partition(":")[0][:MAXIMUM_ID_CHARACTERS]


def _pair(client_id: str, address: str) -> tuple[str, str]:
    return counted_id(client_id), network_of(address)
