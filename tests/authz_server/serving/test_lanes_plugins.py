"""A step of a plugin that takes too long is refused, and so is one that waits behind it."""

import asyncio
import threading
import time

from authz_server.errors import OAuthError
from authz_server.serving.lanes import Lanes
from authz_server.waiting import Lane

SECONDS = 0.3


def outcome(lanes, lane, act):
    async def call():
        try:
            return await lanes.call(lane, act)
        except OAuthError as error:
            return error.error

    return call()


def test_each_step_ends_in_time_however_many_hang():
    released = threading.Event()

    async def run():
        loop = asyncio.get_running_loop()
        lanes = Lanes(
            loop,
            threads={Lane.PLUGINS: 2, Lane.DATABASE: 1},
            maximum_waiting=100,
            prepared_queries=None,
            seconds={Lane.PLUGINS: SECONDS},
        )
        began = time.monotonic()
        hanging = [outcome(lanes, Lane.PLUGINS, lambda: released.wait(10)) for _ in range(20)]
        assert await asyncio.gather(*hanging) == ["temporarily_unavailable"] * 20
        assert time.monotonic() - began < 10 * SECONDS
        assert await outcome(lanes, Lane.DATABASE, lambda: "another lane") == "another lane"
        released.set()
        deadline = time.monotonic() + 60
        while await outcome(lanes, Lane.PLUGINS, lambda: "works") != "works":
            assert time.monotonic() < deadline
        await lanes.close()

    asyncio.run(run())


def test_the_steps_of_other_lanes_have_no_such_limit():
    async def run():
        lanes = Lanes(
            asyncio.get_running_loop(),
            threads={Lane.DATABASE: 1},
            maximum_waiting=1,
            prepared_queries=None,
            seconds={Lane.PLUGINS: 0.01},
        )
        assert await outcome(lanes, Lane.DATABASE, lambda: time.sleep(0.1) or "slow") == "slow"
        await lanes.close()

    asyncio.run(run())
