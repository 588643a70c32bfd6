"""Checks in a worker process whether it could issue a token now."""

import asyncio
from collections.abc import Callable
from functools import partial

import msgspec

from authz_server.assembly import Services
from authz_server.database.errors import describe_failure
from authz_server.logs import redact
from authz_server.serving.lanes import Lanes
from authz_server.waiting import Lane

#: How long a look at the keys may take; an answer later than that would not serve a client.
LOOK_SECONDS = 3.0


class Report(msgspec.Struct, frozen=True):
    """A worker's report to the main process.

    Attributes:
        failed: what keeps it from serving, each with its reason.
        degraded: what it cannot do though it is of use.
    """

    failed: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """Return it as one line."""
        return msgspec.json.encode(self) + b"\n"


read_report = msgspec.json.Decoder(Report).decode


class SelfCheck:
    """Looks whether this worker could issue a token on its default ring.

    A remote backend that does not answer leaves the worker of use: it verifies, publishes and
    revokes, and every other worker has the same backend. So that counts as degraded.

    Args:
        services: the parts of the application.
        lanes: where the look at the keys waits.
        ring: the default ring.
    """

    def __init__(self, services: Services, lanes: Lanes, ring: str) -> None:
        self._services = services
        self._lanes = lanes
        self._ring = ring
        backend = services.key_backends[services.settings.keys.rings[ring].backend]
        self._is_remote = not backend.caps.in_process

    async def look(self) -> Report:
        """Return what is found; takes at most :data:`LOOK_SECONDS`."""
        failed = () if self._services.feed.is_fresh() else ("database: its changes are not read",)
        problem = await self._look_at_keys()
        if not problem:
            return Report(failed)
        if self._is_remote and problem.startswith("keys:"):
            return Report(failed, (problem,))
        return Report((*failed, problem))

    async def _look_at_keys(self) -> str:
        look: Callable[[], str] = partial(self._services.key_rings.why_not_ready, self._ring)
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                found: str = await self._lanes.call(Lane.SIGNING, look)
        except TimeoutError:
            return f"keys: no answer within {LOOK_SECONDS:.0f} s"
        except Exception as fault:  # noqa: BLE001 - whatever it is, nothing can be signed
            return f"keys: {redact(describe_failure(fault))}"
        return found
