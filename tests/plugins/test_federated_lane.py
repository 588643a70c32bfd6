"""The calls of foreign issuers are bounded, and leave the lane of other plugins free."""

import asyncio
import threading

from authz_server.plugin_api import FetchError, Lane
from authz_server.serving.lanes import Lanes
from plugins.federated_introspection import MAXIMUM_CALLS, FederatedSource, Partner


def test_an_issuer_that_hangs_has_a_few_calls_in_a_lane_of_its_own():
    released, failures = threading.Event(), []

    class Services:
        def post(self, *_, **__):
            released.wait(10)
            raise FetchError("it hangs")

        def report_failure(self, *failure):
            failures.append(failure)

    async def refused(asking):
        try:
            return await asking
        except FetchError as error:
            return str(error)

    async def main():
        partner = Partner(
            "p", "https://p.example", ("a",), "https://p.example/i", token_prefix="p_"
        )
        source = FederatedSource([partner], Services(), 0)
        lanes = Lanes(
            asyncio.get_running_loop(),
            threads={Lane.PLUGINS: 1, Lane.SOURCES: MAXIMUM_CALLS + 1},
            maximum_waiting=100,
            prepared_queries=None,
        )
        answers = asyncio.Queue()
        for number in range(MAXIMUM_CALLS + 1):
            lanes.start(refused(source.find_active(f"p_{number}")), answers.put_nowait)
        assert "earlier calls" in await asyncio.wait_for(answers.get(), 1)
        assert await asyncio.wait_for(lanes.call(Lane.PLUGINS, lambda: "free"), 1) == "free"
        assert await asyncio.wait_for(lanes.call(Lane.SOURCES, lambda: "free"), 1) == "free"
        released.set()
        for _ in range(MAXIMUM_CALLS):
            assert await answers.get() == "it hangs"
        await lanes.close()

    try:
        asyncio.run(main())
    finally:
        released.set()
    assert len(failures) == MAXIMUM_CALLS
