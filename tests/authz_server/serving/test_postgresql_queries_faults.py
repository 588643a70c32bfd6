"""Questions to a PostgreSQL that hangs, restarts, or cannot be reached for a while."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from support.loop_queries import (
    ANSWER_SECONDS,
    ECHO,
    LATE,
    WAIT_SECONDS,
    ask_all,
    longest_hold,
    queries,
)
from support.postgresql import PostgresServer
from support.tcp_proxy import TcpProxy


@pytest.fixture(scope="module")
def starter():
    """A thread for starts: a server ends with the thread that starts it."""
    with ThreadPoolExecutor(1) as starter:
        yield starter


@pytest.fixture(scope="module")
def server(starter):
    """A PostgreSQL server of these tests alone, which they stop and start."""
    server = PostgresServer()
    try:
        starter.submit(server.start).result()
        yield server
    finally:
        server.remove()


@pytest.mark.parametrize("depth", [1, 16])
def test_a_server_that_hangs_holds_only_its_questions_and_never_the_loop(
    on_any_loop, server, depth
):
    """Case J114."""

    async def act():
        async with queries(server.url(), depth=depth) as made:
            await ask_all(made, ECHO, "abc")
            with server.paused():
                began = time.monotonic()
                asked = asyncio.ensure_future(ask_all(made, ECHO, "abcdefgh"))
                assert await longest_hold(1.5) < 0.5
                assert all(isinstance(each, SQLAlchemyError) for each in await asked)
                assert time.monotonic() - began < ANSWER_SECONDS + WAIT_SECONDS + LATE
            assert await ask_all(made, ECHO, "abc") == [("a",), ("b",), ("c",)]

    on_any_loop(act())


@pytest.mark.parametrize("immediate", [True, False])
@pytest.mark.parametrize("depth", [1, 16])
def test_a_server_that_was_restarted_is_asked_again_without_help(
    on_loop, server, starter, immediate, depth
):
    """Case J109."""

    async def act():
        async with queries(server.url(), depth=depth) as made:
            await ask_all(made, ECHO, "abc")
            await asyncio.to_thread(server.stop_immediate if immediate else server.stop_fast)
            for _ in range(3):
                began = time.monotonic()
                outcomes = await ask_all(made, ECHO, "abcdefgh")
                assert all(isinstance(each, SQLAlchemyError) for each in outcomes)
                assert time.monotonic() - began < WAIT_SECONDS + LATE
            await asyncio.get_running_loop().run_in_executor(starter, server.start)
            assert await ask_all(made, ECHO, "abc") == [("a",), ("b",), ("c",)]

    on_loop(act())


@pytest.mark.parametrize("fault", ["silence", "refuse"])
@pytest.mark.parametrize("depth", [1, 16])
def test_a_network_that_fails_is_noticed_in_time_and_heals_without_help(
    on_loop, postgresql, postgresql_url, fault, depth
):
    """Case J109, Case J114."""

    async def act(proxy):
        url = make_url(postgresql_url).set(port=proxy.port)
        async with queries(url.render_as_string(hide_password=False), depth=depth) as made:
            await ask_all(made, ECHO, "abc")
            getattr(proxy, fault)()
            began = time.monotonic()
            asked = asyncio.ensure_future(ask_all(made, ECHO, "abcdefgh"))
            assert await longest_hold(1.0) < 0.5
            assert all(isinstance(each, SQLAlchemyError) for each in await asked)
            assert time.monotonic() - began < ANSWER_SECONDS + WAIT_SECONDS + LATE
            proxy.heal()
            assert await ask_all(made, ECHO, "abc") == [("a",), ("b",), ("c",)]

    with TcpProxy(postgresql.port) as proxy:
        on_loop(act(proxy))
