"""Check in a worker whether it can issue a token."""

import asyncio
from collections.abc import Callable
from functools import partial

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from authz_server.assembly.server import ServerServices
from authz_server.audit.sink import AuditUnavailable
from authz_server.database.errors import describe_failure
from authz_server.database.room import RoomCheck
from authz_server.errors import OAuthError
from authz_server.logs import redact
from authz_server.serving.lanes import Lanes
from authz_server.waiting import Lane

#: Time limit of the check of the keys.
CHECK_SECONDS = 3.0


class Report(msgspec.Struct, frozen=True):
    """A worker's report to the main process.

    Attributes:
        failed: reasons why it cannot serve.
        degraded: failures that leave it able to serve.
    """

    failed: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """Return the report as one line."""
        return msgspec.json.encode(self) + b"\n"


read_report = msgspec.json.Decoder(Report).decode


class SelfCheck:
    """Checks whether this worker can issue a token with its default ring.

    If a remote backend does not answer, the worker still verifies, publishes and revokes, and
    every other worker depends on the same backend. It is reported as degraded.

    Args:
        services: the parts of the application.
        lanes: run the check of the keys.
        ring: the default ring.
    """

    def __init__(self, services: ServerServices, lanes: Lanes, ring: str) -> None:
        self._services = services
        self._lanes = lanes
        self._ring = ring
        backend = services.key_backends[services.settings.keys.rings[ring].backend]
        self._is_remote = not backend.caps.in_process

    async def check(self) -> Report:
        """Return the report, within :data:`CHECK_SECONDS`."""
        fresh = self._services.feed.is_fresh()
        failed = () if fresh else ("database: changes cannot be read",)
        if self._services.sink.has_failed and (reason := await self._find_audit_problem()):
            failed = (*failed, reason)
        room = self._services.database.room
        if room is not None and room.has_failed and (reason := await self._find_room_problem(room)):
            failed = (*failed, reason)
        degraded = await self._find_degradations()
        problem = await self._check_keys()
        if not problem:
            return Report(failed, degraded)
        if self._is_remote and problem.startswith("keys:"):
            return Report(failed, (problem, *degraded))
        return Report((*failed, problem), degraded)

    async def _find_degradations(self) -> tuple[str, ...]:
        """Ask the store of shared counts, without which each process counts for itself."""
        counters = self._services.shared_counters
        if counters is None:
            return ()
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                reason = await self._lanes.call(Lane.OUTBOUND, counters.find_failure)
        except TimeoutError:
            reason = f"no answer within {CHECK_SECONDS:.0f} s"
        except OAuthError:
            # Too many requests wait: this is no failure of the store.
            return ()
        return (f"shared_counts: {reason}",) if reason else ()

    async def _find_audit_problem(self) -> str:
        """Try to write audit records again: without a record no token is issued."""
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._lanes.call(Lane.DATABASE, self._services.sink.try_again)
        except TimeoutError:
            return f"audit: no answer within {CHECK_SECONDS:.0f} s"
        except AuditUnavailable as fault:
            return fault.detail
        return ""

    async def _find_room_problem(self, room: RoomCheck) -> str:
        """Look again for room in the database: without it no revocation is stored."""
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._lanes.call(Lane.DATABASE, room.try_again)
        except TimeoutError:
            return f"database: no answer within {CHECK_SECONDS:.0f} s"
        except SQLAlchemyError as fault:
            return f"database: {redact(describe_failure(fault))}"
        except OAuthError as fault:
            return f"database: {fault.detail}"
        return ""

    async def _check_keys(self) -> str:
        check: Callable[[], str] = partial(self._services.key_rings.why_not_ready, self._ring)
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                found: str = await self._lanes.call(Lane.SIGNING, check)
        except TimeoutError:
            return f"keys: no answer within {CHECK_SECONDS:.0f} s"
        except Exception as fault:  # noqa: BLE001 - any exception prevents signing
            return f"keys: {redact(describe_failure(fault))}"
        return found
