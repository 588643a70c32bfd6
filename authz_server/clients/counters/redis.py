"""Shared counts in Redis."""

import time
from collections.abc import Sequence
from functools import partial
from math import ceil

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from authz_server.clients.counters.shared import Addition, Count, Store, StoreError
from authz_server.errors import OAuthError
from authz_server.waiting import Lane, Step

#: The longest wait for a connection to Redis, and for an answer.
TIMEOUT_SECONDS = 0.25
#: The policy by which a full Redis refuses changes; by any other one it drops counts.
_KEEPS_ALL = "noeviction"

_PREFIX = b"authz-server:count:"
_PROBE, _PROBE_SECONDS = bytes(32), 1


class RedisCounters(Store):
    """Counts over all processes and nodes, as exactly as Redis keeps what it acknowledged.

    Each count is a key that Redis deletes at its end, by the clock of Redis.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, as redis-py reads it.
        timeout_seconds: the longest wait for a connection, and for an answer.

    Raises:
        ValueError: the URL cannot be read.
    """

    def __init__(self, url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._redis = Redis.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
        )
        pool = self._redis.connection_pool
        try:
            # Reads the parameters in the URL, without connecting.
            pool.connection_class(**pool.connection_kwargs)
        except (RedisError, TypeError) as error:
            raise ValueError(str(error)) from None

    async def perform(self, values: Sequence[Addition]) -> Sequence[Count]:
        """Return each count after its addition.

        Raises:
            StoreError: Redis cannot answer.
        """
        try:
            return await Step(Lane.COUNTS, partial(self._add, values))
        except OAuthError as error:
            # The lane ends the wait for a look-up of the host, too.
            raise StoreError(f"Redis: {error.detail}") from error

    def probe(self) -> bool:
        """Add to a count of its own: a full Redis, a replica and a role may refuse changes alone.

        Raises:
            StoreError: Redis cannot answer.
        """
        now = time.time()
        self._add([Addition(_PROBE, now, int(now) + _PROBE_SECONDS)])
        return True

    def find_risk(self) -> str:
        """Return the policy by which a full Redis drops keys; empty: none is known.

        Raises:
            StoreError: Redis cannot answer.
        """
        try:
            memory = self._redis.info("memory")
        except ResponseError:
            # The role of the URL may not ask.
            return ""
        except (RedisError, OSError) as error:
            raise StoreError(f"Redis: {error}") from error
        policy = memory.get("maxmemory_policy", _KEEPS_ALL)
        return "" if policy == _KEEPS_ALL or not memory.get("maxmemory") else str(policy)

    def _add(self, values: Sequence[Addition]) -> list[Count]:
        # One transaction, so that a count never loses its end.
        with self._redis.pipeline(transaction=True) as pipeline:
            for key, now, ends_at, number in values:
                name = _PREFIX + key.hex().encode()
                pipeline.set(name, 0, px=max(1, ends_at * 1_000 - round(now * 1_000)), nx=True)
                pipeline.incrby(name, number)
                pipeline.pttl(name)
            try:
                answers = pipeline.execute()
            except (RedisError, OSError) as error:
                raise StoreError(f"Redis: {error}") from error
        # Of each three answers, the first only says whether the count is new.
        return [
            Count(number, ceil((round(value.now * 1_000) + left) / 1_000))
            for value, number, left in zip(values, answers[1::3], answers[2::3], strict=True)
        ]
