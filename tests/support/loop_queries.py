"""Questions of the event loop to PostgreSQL, made as a worker makes them."""

import asyncio
import time
from contextlib import asynccontextmanager
from functools import partial

import pytest
from psycopg import sql

from authz_server.database.orm import open_database
from authz_server.serving.lanes import Lanes
from authz_server.serving.postgresql_queries import PostgresqlQueries
from authz_server.settings import DatabaseSettings
from authz_server.waiting import Lane
from support.postgresql_access import database_name
from support.worker_site import LOOPS, PLAIN_LOOPS

ECHO = "SELECT ?::text"
BYTES = "SELECT ?::bytea"
SLEEP = "SELECT pg_sleep(?::float)::text, 'woken'"
STATEMENT_SECONDS = 0.5
ANSWER_SECONDS = 1.0
WAIT_SECONDS = 0.6
#: How often answers that take too long are looked for.
TICK_SECONDS = 0.1
#: The rest is a machine with other work.
LATE = 3.0
#: For tests in which nothing is late.
PATIENT = {"statement_seconds": 20.0, "wait_seconds": 20.0, "answer_seconds": 20.0}


def run_on(loop, coroutine):
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(asyncio.wait_for(coroutine, 60))


@pytest.fixture
def on_loop():
    """A function of a coroutine that runs it on the usual loop."""
    return partial(run_on, "uvloop")


@pytest.fixture(params=PLAIN_LOOPS)
def on_any_loop(request):
    """The same on each of the loops, for what their watching of connections does."""
    return partial(run_on, request.param)


@asynccontextmanager
async def queries(  # noqa: PLR0913 - the limits of a worker, each with a default
    url,
    *,
    connections=3,
    depth=1,
    maximum_waiting=100,
    statement_seconds=STATEMENT_SECONDS,
    wait_seconds=WAIT_SECONDS,
    answer_seconds=ANSWER_SECONDS,
):
    """Yield queries to the database of the URL, looked after as a front does."""
    settings = DatabaseSettings(
        url=url,
        pool_size=connections,
        statement_timeout_milliseconds=int(statement_seconds * 1_000),
        pool_timeout_milliseconds=int(wait_seconds * 1_000),
        connect_timeout_seconds=1,
    )
    loop = asyncio.get_running_loop()
    database = open_database(settings)
    lanes = Lanes(
        loop, threads=dict.fromkeys(Lane, 4), maximum_waiting=1_000, prepared_queries=None
    )
    made = PostgresqlQueries(
        loop,
        database.engine,
        connections=connections,
        depth=depth,
        maximum_waiting=maximum_waiting,
        wait_seconds=wait_seconds,
        answer_seconds=answer_seconds,
        call=partial(lanes.call, Lane.DATABASE),
    )

    async def look_after() -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            made.expire()

    ticks = loop.create_task(look_after())
    try:
        yield made
    finally:
        ticks.cancel()
        made.close()
        await lanes.close()
        database.close()


async def ask_all(made, question, values):
    """Ask at once; return rows and errors."""
    asked = [made.fetch_one(question, value) for value in values]
    return await asyncio.gather(*asked, return_exceptions=True)


async def longest_hold(seconds: float) -> float:
    """Return the longest time for which the loop did nothing else."""
    longest, ends = 0.0, time.monotonic() + seconds
    while (before := time.monotonic()) < ends:
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - before)
    return longest


def backends(postgresql, url) -> int:
    """Return how many connections that database has."""
    # Without the workers of autovacuum.
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = %s AND backend_type = 'client backend'"
    )
    return postgresql.execute(query, database_name(url))[0][0]


def cut(postgresql, url) -> None:
    """End every connection of that database from the server's side."""
    statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}"
    postgresql.execute(sql.SQL(statement).format(sql.Literal(database_name(url))))
