"""Documents of other parties: how long they are cached, and who waits for them."""

import asyncio
import socket
import threading
import time
from contextlib import ExitStack

import pytest

from authz_server.clients.fetching import (
    LONGEST_BACK_OFF_SECONDS,
    LONGEST_RETRY_AFTER_SECONDS,
    LONGEST_SILENT_BACK_OFF_SECONDS,
    MAXIMUM_FETCHES_OF_ORIGIN,
    FetchError,
    read_lifetime,
)
from authz_server.errors import OAuthError
from authz_server.serving.lanes import Lanes
from authz_server.serving.worker import FETCHING_THREADS
from authz_server.waiting import Lane
from support.fetching import DOCUMENT, get
from support.scripted_server import ScriptedServer, answer_with

# ---------------------------------------------------------------------------------- cache


def test_a_document_is_cached_as_long_as_it_may_be_within_the_bounds(make_fetcher, monotonic):
    bounds = {"minimum_cache_seconds": 10, "maximum_cache_seconds": 100}
    for control, seconds in (
        ("max-age=50", 50),
        ("public, MAX-AGE=50, must-revalidate", 50),
        ("max-age=1", 10),
        ("no-store", 10),
        ("max-age=100000", 100),
        ("", 20),
        ("nonsense", 20),
    ):
        answer = answer_with(DOCUMENT, extra=f"Cache-Control: {control}\r\n")
        with ScriptedServer(answer) as server:
            fetcher = make_fetcher(default_cache_seconds=20, **bounds)
            first = get(fetcher, server.address)
            monotonic.now += seconds - 0.1
            assert get(fetcher, server.address) is first
            assert len(server.requests) == 1
            monotonic.now += 0.2
            # The document has not changed, so that what was read of it need not be read again.
            assert get(fetcher, server.address) is first
            assert len(server.requests) == 2


def test_a_newer_document_is_fetched_at_most_once_in_the_shortest_time(make_fetcher, monotonic):
    bodies = iter([b"1", b"2", b"3"])
    with ScriptedServer(lambda peer, _: answer_with(next(bodies))(peer, b"")) as server:
        fetcher = make_fetcher(minimum_cache_seconds=30)
        assert get(fetcher, server.address) == b"1"
        assert get(fetcher, server.address, newer=True) == b"1"
        monotonic.now += 31
        assert get(fetcher, server.address) == b"1"
        assert get(fetcher, server.address, newer=True) == b"2"
        assert get(fetcher, server.address, newer=True) == b"2"
        assert len(server.requests) == 2


def test_the_last_document_is_used_for_a_limited_time_while_its_url_fails(make_fetcher, monotonic):
    is_well = True

    def answer(peer: socket.socket, request: bytes) -> None:
        answer_with(DOCUMENT, 200 if is_well else 500)(peer, request)

    with ScriptedServer(answer) as server:
        fetcher = make_fetcher(default_cache_seconds=100, keep_seconds=1_000)
        assert get(fetcher, server.address) == DOCUMENT
        is_well = False
        monotonic.now += 101
        assert get(fetcher, server.address) == DOCUMENT
        assert len(server.requests) == 2
        monotonic.now += 900
        assert get(fetcher, server.address) == DOCUMENT
        monotonic.now += 100
        with pytest.raises(FetchError):
            get(fetcher, server.address)
        is_well = True
        monotonic.now += LONGEST_BACK_OFF_SECONDS
        assert get(fetcher, server.address) == DOCUMENT


def test_a_url_that_answers_by_an_error_is_left_alone_for_some_seconds(make_fetcher, monotonic):
    """No longer, however often strangers have it fetched: the document may be published since."""
    with ScriptedServer(answer_with(b"", 404)) as server:
        fetcher = make_fetcher()
        for number, seconds in enumerate((1, 2, 4, 5), start=1):
            for _ in range(3):
                with pytest.raises(FetchError):
                    get(fetcher, server.address)
                with pytest.raises(FetchError):
                    get(fetcher, server.address, newer=True)
            assert len(server.requests) == number
            monotonic.now += seconds + 0.1
        for _ in range(20):
            monotonic.now += LONGEST_BACK_OFF_SECONDS + 0.1
            with pytest.raises(FetchError):
                get(fetcher, server.address)
        assert len(server.requests) == 24
        server._answer = answer_with(DOCUMENT)  # noqa: SLF001 - it is published
        monotonic.now += LONGEST_BACK_OFF_SECONDS + 0.1
        assert get(fetcher, server.address) == DOCUMENT


def test_a_url_that_does_not_answer_is_left_alone_for_longer(make_fetcher, monotonic):
    """Each attempt may keep a thread for the whole time of a fetch."""
    asked = []

    def resolve(host: str, _seconds: float) -> list[str]:
        asked.append(host)
        raise TimeoutError("looking up the host takes too long")

    fetcher = make_fetcher(resolve)
    for number, seconds in enumerate((1, 2, 4, 8, 16, 32, 60, 60), start=1):
        for part in (0.0, seconds - 0.1):
            monotonic.now += part
            with pytest.raises(FetchError):
                get(fetcher, "https://keys.example/")
        assert len(asked) == number
        monotonic.now += 0.2
    assert LONGEST_SILENT_BACK_OFF_SECONDS == 60


def test_an_origin_may_ask_to_be_left_alone_within_a_bound(make_fetcher, monotonic):
    """RFC 9110, 10.2.3."""
    for asked, seconds in ((120, 120), (100_000, LONGEST_RETRY_AFTER_SECONDS)):
        answer = answer_with(b"", 503, extra=f"Retry-After: {asked}\r\n")
        with ScriptedServer(answer) as server:
            fetcher = make_fetcher()
            for number, part in enumerate((0.0, seconds - 0.1, 0.2)):
                monotonic.now += part
                with pytest.raises(FetchError):
                    get(fetcher, server.address)
                assert len(server.requests) == 1 + number // 2


def test_the_outcome_of_each_fetch_is_notified(make_fetcher, fetched):
    with (
        ScriptedServer(answer_with(DOCUMENT)) as well,
        ScriptedServer(answer_with(b"", 500)) as ill,
    ):
        fetcher = make_fetcher()
        for _ in range(2):
            get(fetcher, well.address)
            with pytest.raises(FetchError):
                get(fetcher, ill.address)
            with pytest.raises(FetchError):
                get(fetcher, "https://10.0.0.1/")
    # The second of each came from the cache.
    assert fetched == ["ok", "failed", "refused"]


def test_the_cache_is_bounded_in_bytes_and_documents(make_fetcher, monkeypatch):
    monkeypatch.setattr("authz_server.clients.fetching.MAXIMUM_DOCUMENTS", 3)
    with ScriptedServer(answer_with(DOCUMENT)) as server:
        fetcher = make_fetcher()
        for number in range(5):
            get(fetcher, f"{server.address}/{number}")
        get(fetcher, f"{server.address}/4")
        assert len(server.requests) == 5
        get(fetcher, f"{server.address}/0")
        assert len(server.requests) == 6
    monkeypatch.setattr("authz_server.clients.fetching.MAXIMUM_CACHED_BYTES", 150_000)
    with ScriptedServer(answer_with(b"x" * 60_000)) as server:
        fetcher = make_fetcher()
        for path in "abc":
            get(fetcher, f"{server.address}/{path}")
        get(fetcher, f"{server.address}/c")
        assert len(server.requests) == 3
        get(fetcher, f"{server.address}/a")
        assert len(server.requests) == 4


def test_urls_that_give_nothing_displace_no_document(make_fetcher, monkeypatch):
    monkeypatch.setattr("authz_server.clients.fetching.MAXIMUM_EMPTY", 2)

    def answer(peer: socket.socket, request: bytes) -> None:
        answer_with(DOCUMENT, 200 if b"/good" in request else 404)(peer, request)

    with ScriptedServer(answer) as server:
        fetcher = make_fetcher()
        get(fetcher, f"{server.address}/good")
        for number in (*range(5), 4, 3):
            with pytest.raises(FetchError):
                get(fetcher, f"{server.address}/{number}")
        assert len(server.requests) == 6
        get(fetcher, f"{server.address}/good")
        assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", None),
        ("max-age=0", 0),
        ('max-age="60"', 60),
        ("no-cache, max-age=60", 0),
        ("s-maxage=9", None),
        ("max-age=-1", None),
        ("max-age=" + "9" * 5_000, 9_999_999_999),
    ],
)
def test_the_lifetime_of_a_document_is_read(value, seconds):
    assert read_lifetime(value) == seconds


# ------------------------------------------------------------------------- many at a time


def slowly(connection: socket.socket, request: bytes) -> None:
    time.sleep(0.3)
    answer_with(DOCUMENT)(connection, request)


def test_requests_in_threads_share_one_fetch(make_fetcher):
    with ScriptedServer(slowly) as server:
        fetcher, bodies = make_fetcher(), []
        threads = [
            threading.Thread(target=lambda: bodies.append(get(fetcher, server.address)))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bodies == [DOCUMENT] * 20
        assert len(server.requests) == 1


async def on_loop(*coroutines, threads: int = 4, limit: int = 1_000) -> list:
    """Run coroutines at once as a worker does; return results and errors."""
    loop = asyncio.get_running_loop()
    lanes = Lanes(
        loop,
        threads=dict.fromkeys(Lane, threads),
        maximum_waiting=limit,
        prepared_queries=None,
    )

    async def caught(coroutine):
        try:
            return await coroutine
        except Exception as error:  # noqa: BLE001 - it is the result
            return error

    results = [loop.create_future() for _ in coroutines]
    for coroutine, result in zip(coroutines, results, strict=True):
        lanes.start(caught(coroutine), result.set_result)
    gathered = await asyncio.gather(*results)
    await lanes.close()
    return gathered


def test_any_number_of_requests_on_a_loop_share_one_fetch_and_one_thread(make_fetcher):
    """Case H92. Threads that wait for one slow URL would be missing for another."""
    with ScriptedServer(slowly) as slow, ScriptedServer(answer_with(b"quick")) as quick:
        fetcher = make_fetcher()
        results = asyncio.run(
            on_loop(
                *(fetcher.fetch(slow.address) for _ in range(300)),
                fetcher.fetch(quick.address),
                threads=2,
            )
        )
        assert results == [DOCUMENT] * 300 + [b"quick"]
        assert len(slow.requests) == 1


def test_a_failure_is_that_of_every_request_that_waits(make_fetcher):
    with ScriptedServer(answer_with(b"", 500)) as server:
        fetcher = make_fetcher()
        results = asyncio.run(on_loop(*(fetcher.fetch(server.address) for _ in range(50))))
        assert {type(each) for each in results} == {FetchError}
        assert len(server.requests) == 1


def test_one_slow_origin_holds_no_more_than_its_share_of_threads(make_fetcher):
    held = threading.Event()
    with (
        ScriptedServer(lambda *_: held.wait(5)) as slow,
        ScriptedServer(answer_with(DOCUMENT)) as quick,
    ):
        fetcher = make_fetcher()
        urls = [f"{slow.address}/{number}" for number in range(MAXIMUM_FETCHES_OF_ORIGIN + 3)]
        results = asyncio.run(
            on_loop(*map(fetcher.fetch, (*urls, quick.address)), threads=len(urls) + 1)
        )
        held.set()
        assert results[-1] == DOCUMENT
        assert len(slow.requests) == MAXIMUM_FETCHES_OF_ORIGIN
        # What was not fetched for want of room is held against neither its URL nor its client.
        refused = [each for each in results if isinstance(each, OAuthError)]
        assert [each.reason for each in refused] == ["temporarily_unavailable"] * 3
        assert all("too many documents of this origin" in each.detail for each in refused)


def test_several_slow_origins_leave_threads_to_a_prompt_one(make_fetcher):
    held = threading.Event()

    def answer_late(connection: socket.socket, request: bytes) -> None:
        held.wait(60)
        answer_with(DOCUMENT)(connection, request)

    with ExitStack() as stack:
        start = stack.enter_context
        slow = [start(ScriptedServer(answer_late)) for _ in range(7)]
        quick = start(ScriptedServer(answer_with(DOCUMENT)))
        stack.callback(held.set)
        fetcher = make_fetcher(timeout_seconds=30)
        paths = range(2 * MAXIMUM_FETCHES_OF_ORIGIN)
        urls = [f"{each.address}/{path}" for each in slow for path in paths]

        async def fetch_quick() -> bytes:
            body = await fetcher.fetch(quick.address)
            held.set()
            return body

        fetches = *map(fetcher.fetch, urls), fetch_quick()
        results = asyncio.run(on_loop(*fetches, threads=FETCHING_THREADS))
    assert results[-1] == DOCUMENT
    assert sum(isinstance(each, OAuthError) for each in results) == len(urls) // 2


def test_what_is_at_hand_is_used_while_too_much_is_fetched(make_fetcher, monotonic, monkeypatch):
    with ScriptedServer(answer_with(DOCUMENT)) as server:
        fetcher = make_fetcher(default_cache_seconds=100, keep_seconds=1_000)
        assert get(fetcher, server.address) == DOCUMENT
        monkeypatch.setattr("authz_server.clients.exchanges.MAXIMUM_FETCHES_OF_ORIGIN", 0)
        monotonic.now += 101
        assert get(fetcher, server.address) == DOCUMENT
        monotonic.now += 1_000
        for _ in range(3):
            with pytest.raises(OAuthError) as busy:
                get(fetcher, server.address)
            assert busy.value.reason == "temporarily_unavailable"
        monkeypatch.undo()
        assert get(fetcher, server.address) == DOCUMENT
