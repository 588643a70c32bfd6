"""Run endpoint coroutines on an event loop, and their waiting steps off the loop."""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

from sqlalchemy.exc import SQLAlchemyError

from authz_server.database.prepared_queries import PreparedQueries, PreparedQuery
from authz_server.endpoints.responses import Answer
from authz_server.errors import OAuthError
from authz_server.serving.threads import Threads
from authz_server.waiting import Batch, BatchedStep, Lane, Step

#: How many steps are performed together at most.
BATCH_SIZE = 128
#: How long a batch waits for further steps while every turn of the loop brings some.
GATHER_SECONDS = 0.005
#: A batch begins once so many turns of the loop have brought no further step.
QUIET_TURNS = 2
#: How long a small batch then waits for the next requests of those just answered.
RETURN_SECONDS = 0.001

Respond = Callable[[Answer], None]
Endpoint = Coroutine[Step[Any], Any, Answer]


class Queries(Protocol):
    """Queries the database over connections that the event loop watches."""

    def has_room(self) -> bool:
        """Return whether few queries wait for a connection."""

    async def fetch_one(self, query: str, value: str | bytes) -> tuple[Any, ...] | None:
        """Return the first row, or None."""

    def close(self) -> None:
        """Close the connections."""


class _Waiter(Protocol):
    """Receives the result of a step that a batch performs."""

    def done(self) -> bool:
        """Return whether it waits no longer."""

    def set_result(self, result: Any, /) -> object:  # noqa: ANN401 - of any step
        """Take the result."""

    def set_exception(self, fault: Exception, /) -> object:
        """Take the exception that the step raised."""


_Gathered = tuple[Any, _Waiter]


class _Queue:
    """The steps that wait for a batch, while one of it is under way."""

    __slots__ = ("_filled", "_wanted", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[_Gathered] = deque()
        self._wanted = 0
        self._filled: asyncio.Future[None] | None = None

    def add(self, value: object, waiter: _Waiter) -> None:
        """Let a step wait."""
        self.waiting.append((value, waiter))
        if self._filled is not None and len(self.waiting) >= self._wanted:
            self._end_wait()

    async def await_steps(self, wanted: int, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until so many steps wait, for ``RETURN_SECONDS`` at the longest."""
        self._wanted, self._filled = wanted, loop.create_future()
        limit = loop.call_later(RETURN_SECONDS, self._end_wait)
        try:
            await self._filled
        finally:
            limit.cancel()
            self._filled = None

    def _end_wait(self) -> None:
        if self._filled is not None and not self._filled.done():
            self._filled.set_result(None)


class _WaitingEndpoint:
    """An endpoint's coroutine that waits for a batch; a task and a future would cost 10 µs more.

    Args:
        lanes: resume the coroutine, in a turn of its own.
        endpoint: the coroutine.
        respond: receives the response.
    """

    __slots__ = ("context", "endpoint", "lanes", "respond")

    def __init__(self, lanes: "Lanes", endpoint: Endpoint, respond: Respond) -> None:
        self.lanes = lanes
        self.endpoint = endpoint
        self.respond = respond
        # As a task would, so that the request's log lines keep its id.
        self.context = contextvars.copy_context()

    def done(self) -> bool:
        """Return False: an endpoint always takes its result."""
        return False

    def set_result(self, result: Any, /) -> None:  # noqa: ANN401 - of any step
        """Continue with the result."""
        self.lanes.resume_soon(partial(self.endpoint.send, result), self)

    def set_exception(self, fault: Exception, /) -> None:
        """Continue with the exception."""
        self.lanes.resume_soon(partial(self.endpoint.throw, fault), self)


class Lanes:
    """Threads for steps that wait: a few for each lane, with a bounded queue.

    Args:
        loop: runs the coroutines.
        threads: the number of threads of each lane.
        seconds: how long a step of a lane may take, its wait included; without an entry: no limit.
        maximum_waiting: how many requests may wait in each lane; further ones are refused.
        prepared_queries: queries an SQLite file without waiting; None for PostgreSQL.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        threads: Mapping[Lane, int],
        maximum_waiting: int,
        prepared_queries: PreparedQueries | None,
        seconds: Mapping[Lane, float] = MappingProxyType({}),
    ) -> None:
        self._loop = loop
        self._threads = {lane: Threads(loop, lane.value, count) for lane, count in threads.items()}
        self._maximum_waiting = maximum_waiting
        self._seconds = seconds
        self._prepared_queries = prepared_queries
        self._queries: Queries | None = None
        self._waiting = dict.fromkeys(Lane, 0)
        self._gathered: dict[Batch[Any, Any], _Queue] = {}
        # The end of the last batch of those that wait for returning requests, and how many those
        # are: the steps of that batch, and the steps that waited when it ended.
        self._returning: dict[Batch[Any, Any], tuple[float, int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def use_queries(self, queries: Queries) -> None:
        """Run prepared queries by ``queries`` instead of on threads."""
        self._queries = queries

    def has_room(self) -> bool:
        """Return whether few queries of the event loop wait for the database."""
        return self._queries is None or self._queries.has_room()

    def start(self, endpoint: Endpoint, respond: Respond) -> None:
        """Run an endpoint's coroutine and call ``respond``, at once if no step waits.

        Args:
            endpoint: must not raise; its errors are responses.
            respond: called with the response, on the loop.
        """
        try:
            step = endpoint.send(None)
            while isinstance(step, PreparedQuery) and self._prepared_queries is not None:
                try:
                    row = self._prepared_queries.fetch_one(step.query, step.value)
                except SQLAlchemyError:
                    # Locked, in use or broken: the step that waits finds out.
                    break
                step = endpoint.send(row)
        except StopIteration as end:
            respond(end.value)
            return
        self._wait(step, _WaitingEndpoint(self, endpoint, respond))

    def _wait(self, step: Step[Any], waiting: _WaitingEndpoint) -> None:
        if isinstance(step, BatchedStep) and self._has_place(step):
            self._queue(step, waiting)
        else:
            self.keep(self._finish(waiting.endpoint, step, waiting.respond))

    def resume_soon(self, resume: Callable[[], Step[Any]], waiting: _WaitingEndpoint) -> None:
        """Continue an endpoint's coroutine in the next turn of the loop."""
        self._loop.call_soon(self._resume, resume, waiting, context=waiting.context)

    def _resume(self, resume: Callable[[], Step[Any]], waiting: _WaitingEndpoint) -> None:
        try:
            step = resume()
        except StopIteration as end:
            waiting.respond(end.value)
        else:
            self._wait(step, waiting)

    async def call(self, lane: Lane, act: Callable[[], Any]) -> Any:  # noqa: ANN401 - what it returns
        """Run ``act`` on a thread of the lane and return its result.

        Raises:
            OAuthError: ``temporarily_unavailable``: too many requests wait.
        """
        if self._waiting[lane] >= self._maximum_waiting:
            raise OAuthError("temporarily_unavailable", f"too many requests wait: {lane.value}")
        self._waiting[lane] += 1
        try:
            result = self._threads[lane].call(act)
            seconds = self._seconds.get(lane)
            return await (result if seconds is None else asyncio.wait_for(result, seconds))
        except TimeoutError:
            if self._seconds.get(lane) is None:
                raise
            raise OAuthError(
                "temporarily_unavailable", f"it takes too long: {lane.value}"
            ) from None
        finally:
            self._waiting[lane] -= 1

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as a task, and keep a reference to it."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop idle threads and close connections; cancel what still waits."""
        for task in list(self._tasks):
            task.cancel()
        if self._queries is not None:
            self._queries.close()
        if self._prepared_queries is not None:
            self._prepared_queries.close()
        for threads in self._threads.values():
            threads.close()

    async def _finish(self, endpoint: Endpoint, step: Step[Any], respond: Respond) -> None:
        respond(await self._drive(endpoint, step))

    async def _drive(self, coroutine: Coroutine[Step[Any], Any, Any], step: Step[Any]) -> Any:  # noqa: ANN401 - what the coroutine returns
        try:
            while True:
                try:
                    value = await self._perform(step)
                except Exception as fault:  # noqa: BLE001 - the coroutine handles it
                    step = coroutine.throw(fault)
                else:
                    step = coroutine.send(value)
        except StopIteration as end:
            return end.value

    async def _complete(self, coroutine: Coroutine[Step[Any], Any, Any]) -> Any:  # noqa: ANN401 - what the coroutine returns
        try:
            step = coroutine.send(None)
        except StopIteration as end:
            return end.value
        return await self._drive(coroutine, step)

    async def _perform(self, step: Step[Any]) -> Any:  # noqa: ANN401 - what the step returns
        if isinstance(step, PreparedQuery) and self._queries is not None:
            return await self._queries.fetch_one(step.query, step.value)
        if isinstance(step, BatchedStep):
            return await self._gather(step)
        return await self.call(step.lane, step.act)

    def _gather(self, step: BatchedStep[Any]) -> asyncio.Future[Any]:
        """Return the future result of a step, which the next batch performs."""
        if not self._has_place(step):
            raise OAuthError("temporarily_unavailable", "too many requests wait for a batch")
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._queue(step, answer)
        return answer

    def _has_place(self, step: BatchedStep[Any]) -> bool:
        queue = self._gathered.get(step.batch)
        return queue is None or len(queue.waiting) < self._maximum_waiting

    def _queue(self, step: BatchedStep[Any], waiter: _Waiter) -> None:
        """Let the next batch perform a step and pass its result to the waiter."""
        queue = self._gathered.get(step.batch)
        if queue is None:
            queue = self._gathered[step.batch] = _Queue()
            # Its task begins after the other requests of this turn of the loop.
            self.keep(self._perform_batches(step.batch, queue))
        queue.add(step.value, waiter)

    async def _perform_batches(self, batch: Batch[Any, Any], queue: _Queue) -> None:
        """Perform batches, one after the other, until no step waits."""
        waiting = queue.waiting
        try:
            while waiting:
                await self._gather_more(waiting)
                if batch.enough:
                    await self._await_returning(batch, queue)
                taken = [waiting.popleft() for _ in range(min(len(waiting), BATCH_SIZE))]
                await self._perform_batch(batch, taken)
                if batch.enough:
                    self._returning[batch] = self._loop.time(), len(taken) + len(waiting)
        finally:
            del self._gathered[batch]

    async def _gather_more(self, waiting: deque[_Gathered]) -> None:
        """Wait until two turns of the loop bring no further step.

        A busy loop has read some requests only. A batch that began with these would make the others
        wait for the next one, and a commit costs as much for one value as for many. The clients of
        the batch before are answered in the first turn, and their next requests arrive in the
        second one.
        """
        until, known, quiet = self._loop.time() + GATHER_SECONDS, 0, 0
        while quiet < QUIET_TURNS and len(waiting) < BATCH_SIZE and self._loop.time() < until:
            known = len(waiting)
            await asyncio.sleep(0)
            quiet = 0 if known < len(waiting) else quiet + 1

    async def _await_returning(self, batch: Batch[Any, Any], queue: _Queue) -> None:
        """Wait for the next requests of those just answered, which an idle loop's turns outrun.

        Otherwise a few connections would fall into two groups, each of which has a batch of its own
        while the other is answered, and a value would cost twice as much.
        """
        ended, count = self._returning.get(batch, (0.0, 0))
        is_small = len(queue.waiting) < count <= batch.enough
        if is_small and self._loop.time() - ended < GATHER_SECONDS:
            await queue.await_steps(count, self._loop)

    async def _perform_batch(self, batch: Batch[Any, Any], taken: Sequence[_Gathered]) -> None:
        try:
            results = await self._complete(batch.perform([value for value, _ in taken]))
        except Exception as fault:  # noqa: BLE001 - each request handles it
            for _, answer in taken:
                if not answer.done():
                    answer.set_exception(fault)
            return
        for (_, answer), result in zip(taken, results, strict=True):
            if not answer.done():
                answer.set_result(result)
