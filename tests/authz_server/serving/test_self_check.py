"""Checks of a worker that hang: side by side, one of each kind, apart from requests."""

import asyncio
import gc
import threading
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from authz_server.serving import self_check
from authz_server.serving.self_check import CHECK_THREADS, MOST_NAMED, Report, SelfCheck
from authz_server.waiting import Lane
from support.asked import lanes

RING = "main"


def nothing() -> str:
    return ""


@asynccontextmanager
async def checking(*, keys=nothing, others=list, audit=nothing, room=nothing, counters=nothing):
    """Yield the check of a worker whose parts are these functions, and its lanes."""
    services = SimpleNamespace(
        settings=SimpleNamespace(keys=SimpleNamespace(rings={RING: SimpleNamespace(backend="b")})),
        key_backends={"b": SimpleNamespace(caps=SimpleNamespace(in_process=False))},
        key_rings=SimpleNamespace(why_not_ready=lambda _: keys(), find_failures=lambda _: others()),
        feed=SimpleNamespace(find_problem=lambda: ""),
        sink=SimpleNamespace(has_failed=True, try_again=audit),
        database=SimpleNamespace(room=SimpleNamespace(has_failed=True, find_problem=room)),
        shared_counters=SimpleNamespace(find_failure=counters),
    )
    async with lanes(threads=CHECK_THREADS) as made:
        yield SelfCheck(services, made, RING), made


def test_faults_at_once_take_the_time_of_one():
    # Each waits for all the others.
    waits = threading.Barrier(5).wait

    def wait_for_the_others() -> str:
        waits(timeout=60)
        return ""

    async def act() -> Report:
        every = dict.fromkeys(("keys", "audit", "room", "counters"), wait_for_the_others)
        async with checking(others=lambda: list(wait_for_the_others()), **every) as (check, _):
            return await check.check()

    assert asyncio.run(act()) == Report()


def test_a_check_that_fails_is_reported_as_a_failure():
    """And the reports go on."""

    def fail() -> str:
        raise MemoryError("no more")

    async def act() -> list[Report]:
        every = dict.fromkeys(("keys", "others", "audit", "room", "counters"), fail)
        async with checking(**every) as (check, _):
            return [await check.check() for _ in range(2)]

    first, second = asyncio.run(act())
    assert first == second
    names = [each.partition(":")[0] for each in (*first.failed, *first.degraded)]
    assert names == ["audit", "keys", "keys", "database", "shared_counts"], first


def test_other_rings_that_hang_or_fail_leave_the_worker_able_to_serve(monkeypatch):
    """It issues by the default ring."""
    monkeypatch.setattr(self_check, "CHECK_SECONDS", 0.5)
    released = threading.Event()

    def hang() -> list[str]:
        released.wait(60)
        return ["keys:files its key is soft-deleted"]

    async def act() -> None:
        async with checking(others=hang) as (check, _):
            report = await check.check()
            assert "keys: other rings: no answer within 3 s" in report.degraded
            released.set()
            while "keys:files its key is soft-deleted" not in report.degraded:
                report = await check.check()
            assert not any(each.startswith("keys") for each in report.failed)

    asyncio.run(act())


def test_a_report_about_many_rings_fits_into_the_pipe():
    """Otherwise the main process never sees its end, and takes the worker for one that hangs."""
    many = [f"keys:ring-{number:04} {'x' * 1_000}" for number in range(2_000)]

    async def act() -> Report:
        async with checking(others=lambda: many) as (check, _):
            return await check.check()

    report = asyncio.run(act())
    assert len(report.encode()) < 16_384
    assert report.degraded[0].startswith("keys:ring-0000 x")
    assert report.degraded[MOST_NAMED:] == (f"keys: {2_000 - MOST_NAMED} more rings cannot sign",)


def test_a_check_that_hangs_is_reported_at_once_until_it_returns(monkeypatch):
    monkeypatch.setattr(self_check, "CHECK_SECONDS", 0.5)
    released, calls = threading.Event(), []

    def hang() -> str:
        calls.append(1)
        released.wait(60)
        return "refused"

    async def act() -> None:
        async with checking(counters=hang) as (check, _):
            for _ in range(3):
                report = await check.check()
                assert "shared_counts: no answer within 3 s" in report.degraded
            assert len(calls) == 1
            released.set()
            while "shared_counts: refused" not in report.degraded:
                report = await check.check()

    asyncio.run(act())


@pytest.mark.parametrize("turns", range(1, 6))
def test_a_check_under_way_when_its_worker_ends_is_not_logged(turns):
    """A reload stops the threads of a call that is no longer awaited; this is not an error."""
    logged: list[dict] = []

    async def act() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
        async with checking() as (check, made):
            checked = asyncio.create_task(check.check())
            for _ in range(turns):
                await asyncio.sleep(0)
            checked.cancel()
            await made.close()
            await asyncio.gather(checked, return_exceptions=True)
            await asyncio.sleep(0)
        del checked, check
        gc.collect()

    asyncio.run(act())
    assert logged == []


def test_the_shared_counts_do_not_wait_behind_documents_that_are_fetched():
    released = threading.Event()

    async def act() -> Report:
        async with checking(room=lambda: "disk full") as (check, made):
            for lane in (Lane.OUTBOUND, Lane.DATABASE):
                for _ in range(20):
                    made.keep(made.call(lane, lambda: released.wait(60)))
            await asyncio.sleep(0)
            try:
                return await check.check()
            finally:
                released.set()

    # A full disk of the database, which all nodes share, leaves each able to issue tokens.
    assert asyncio.run(act()) == Report(degraded=("database: disk full",))
