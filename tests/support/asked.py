"""Coroutines of endpoints on lanes, as a worker runs them."""

import asyncio
from contextlib import asynccontextmanager

from authz_server.endpoints.responses import Answer
from authz_server.serving.lanes import Lanes
from authz_server.waiting import Lane, Step


@asynccontextmanager
async def lanes(*, threads=2, maximum_waiting=100, prepared_queries=None, seconds=None):
    """Yield lanes, closed in the end."""
    made = Lanes(
        asyncio.get_running_loop(),
        threads=dict.fromkeys(Lane, threads),
        maximum_waiting=maximum_waiting,
        prepared_queries=prepared_queries,
        seconds=seconds or {},
    )
    try:
        yield made
    finally:
        await made.close()


class Asked:
    """An endpoint's coroutine under way: `values` are the results of its steps, in order."""

    def __init__(self, lanes: Lanes, *steps: Step) -> None:
        self.answered = asyncio.get_running_loop().create_future()
        self.values: list[object] = []
        lanes.start(self._respond(steps), self.answered.set_result)

    async def _respond(self, steps) -> Answer:
        for step in steps:
            try:
                self.values.append(await step)
            except Exception as fault:  # noqa: BLE001 - as an endpoint does
                self.values.append(fault)
        return Answer(200, {}, b"")

    async def result(self) -> list[object]:
        """Return the results of the steps once the endpoint has answered."""
        await self.answered
        return self.values
