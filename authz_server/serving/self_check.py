"""Check in a worker whether it can issue a token."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from authz_server.assembly.server import ServerServices
from authz_server.audit.notifier import AuditUnavailable
from authz_server.database.errors import describe_failure
from authz_server.logs import redact
from authz_server.serving.lanes import Lanes
from authz_server.waiting import Lane

#: Time limit of all checks together; without a report for 5 s, a worker does not answer.
CHECK_SECONDS = 3.0
#: One for each check on the lane: of the rings besides the default one, of audit records, of the
#: database's room and of shared counts.
CHECK_THREADS = 4
#: The other rings that a report names, and the length of each entry: it has to fit into the pipe
#: to the main process, which otherwise never sees its end.
MOST_NAMED, _ENTRY_CHARACTERS = 20, 300
_NO_ANSWER = f"no answer within {CHECK_SECONDS:.0f} s"


class Report(msgspec.Struct, frozen=True):
    """A worker's report to the main process.

    Attributes:
        failed: reasons why it cannot serve.
        degraded: failures that leave it able to serve.
        accepts: whether it may accept connections; False once it stops.
    """

    failed: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()
    accepts: bool = True

    def encode(self) -> bytes:
        """Return the report as one line."""
        return msgspec.json.encode(self) + b"\n"


read_report = msgspec.json.Decoder(Report).decode


class SelfCheck:
    """Checks whether this worker can issue a token with its default ring.

    If a remote backend does not answer, the worker still verifies, publishes and revokes, and
    every other worker depends on the same backend. It is reported as degraded. So is another ring
    that cannot sign, and a database without room for a change, which all nodes share.

    Args:
        services: the parts of the application.
        lanes: run the checks that wait.
        ring: the default ring.
    """

    def __init__(self, services: ServerServices, lanes: Lanes, ring: str) -> None:
        self._services = services
        backend = services.key_backends[services.settings.keys.rings[ring].backend]
        self._is_remote = not backend.caps.in_process
        why_not_ready: Callable[[], str] = partial(services.key_rings.why_not_ready, ring)
        self._keys = _Probe(lanes, Lane.SIGNING, why_not_ready)
        find_failures: Callable[[], list[str]] = partial(services.key_rings.find_failures, ring)
        self._other_rings = _Probe(lanes, Lane.CHECKS, find_failures)
        self._audit = _Probe(lanes, Lane.CHECKS, services.sink.try_again)
        room, counters = services.database.room, services.shared_counters
        self._room = _Probe(lanes, Lane.CHECKS, room.find_problem) if room else None
        self._counters = _Probe(lanes, Lane.CHECKS, counters.find_failure) if counters else None

    async def check(self) -> Report:
        """Return the report, within :data:`CHECK_SECONDS`: the checks wait side by side."""
        stale = self._services.feed.find_problem()
        keys, others, audit, room, counters = await asyncio.gather(
            self._check_keys(),
            self._check_other_rings(),
            self._find_audit_problem(),
            self._find_room_problem(),
            self._find_counters_problem(),
        )
        failed = [f"database: {stale}" if stale else "", audit]
        degraded = [*others, room, counters]
        if self._is_remote and keys.startswith("keys:"):
            degraded.insert(0, keys)
        else:
            failed.append(keys)
        return Report(tuple(filter(None, failed)), tuple(filter(None, degraded)))

    async def _check_keys(self) -> str:
        try:
            found: str = await self._keys.ask()
        except TimeoutError:
            return f"keys: {_NO_ANSWER}"
        except Exception as fault:  # noqa: BLE001 - any exception prevents signing
            return f"keys: {_describe(fault)}"
        return found

    async def _check_other_rings(self) -> list[str]:
        """Return the other rings that cannot sign; this worker still issues by the default ring."""
        try:
            failures: list[str] = await self._other_rings.ask()
        except TimeoutError:
            return [f"keys: other rings: {_NO_ANSWER}"]
        except Exception as fault:  # noqa: BLE001 - it is reported, and the next report comes
            return [f"keys: other rings: {_describe(fault)}"]
        named = [each[:_ENTRY_CHARACTERS] for each in failures[:MOST_NAMED]]
        left = len(failures) - len(named)
        return [*named, f"keys: {left} more rings cannot sign"] if left else named

    async def _find_audit_problem(self) -> str:
        """Try to write audit records again: without a record no token is issued."""
        if not self._services.sink.has_failed:
            return ""
        try:
            await self._audit.ask()
        except TimeoutError:
            return f"audit: {_NO_ANSWER}"
        except AuditUnavailable as fault:
            return fault.detail
        except Exception as fault:  # noqa: BLE001 - any exception prevents records
            return f"audit: {_describe(fault)}"
        return ""

    async def _find_room_problem(self) -> str:
        """Look again for room in the database: without it no revocation is stored."""
        room = self._services.database.room
        if self._room is None or room is None or not room.has_failed:
            return ""
        return await self._find_reason("database", self._room)

    async def _find_counters_problem(self) -> str:
        """Ask the store of shared counts, without which each process counts for itself."""
        if self._counters is None:
            return ""
        return await self._find_reason("shared_counts", self._counters)

    async def _find_reason(self, name: str, probe: "_Probe") -> str:
        try:
            reason = await probe.ask()
        except TimeoutError:
            reason = _NO_ANSWER
        except Exception as fault:  # noqa: BLE001 - it is reported, and the next report comes
            reason = _describe(fault)
        return f"{name}: {reason}" if reason else ""


def _describe(fault: Exception) -> str:
    return redact(describe_failure(fault))


def _retrieve(call: asyncio.Task[Any]) -> None:
    # A worker that ends awaits its last calls no longer: how they end is no news.
    if not call.cancelled():
        call.exception()


class _Probe:
    """A call that may hang. One is under way at a time.

    Args:
        lanes: run it.
        lane: its lane.
        act: makes the call.
    """

    def __init__(self, lanes: Lanes, lane: Lane, act: Callable[[], Any]) -> None:
        self._lanes = lanes
        self._lane = lane
        self._act = act
        self._call: asyncio.Task[Any] | None = None
        self._due_at = 0.0

    async def ask(self) -> Any:  # noqa: ANN401 - what the call returns
        """Return the result of the call.

        Raises:
            TimeoutError: it has not returned within :data:`CHECK_SECONDS` after its start. The next
                request for its result finds this at once, or the result.
            Exception: raised by the call.
        """
        loop = asyncio.get_running_loop()
        if self._call is None:
            self._call = loop.create_task(self._lanes.call(self._lane, self._act))
            self._call.add_done_callback(_retrieve)
            self._due_at = loop.time() + CHECK_SECONDS
        call = self._call
        await asyncio.wait((call,), timeout=max(0.0, self._due_at - loop.time()))
        if not call.done():
            raise TimeoutError
        self._call = None
        return call.result()
