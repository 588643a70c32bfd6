"""The main process: how long it waits before it replaces a worker, and what it listens on."""

import socket
import time
from contextlib import closing
from types import SimpleNamespace

import pytest

from authz_server.serving.listeners import ServingError, open_all, open_listener
from authz_server.serving.self_check import Report
from authz_server.serving.slots import LONGEST_PAUSE_SECONDS, Generation, Slot, pause_after
from authz_server.serving.worker_processes import SILENCE_SECONDS, Worker
from authz_server.settings import ServerSettings


def test_pauses_double_up_to_the_longest_however_many_workers_died():
    """Case J108."""
    pauses = [pause_after(deaths) for deaths in range(9)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6]
    for deaths in (9, 100, 1_023, 1_024, 10_000, 1_000_000):
        assert pause_after(deaths) == LONGEST_PAUSE_SECONDS == 30.0


@pytest.mark.parametrize(
    ("report", "age", "problem"),
    [
        (Report(), 0.0, ""),
        (Report(failed=("keys: none",)), 0.0, "keys: none"),
        (Report(), SILENCE_SECONDS + 60, "a worker does not answer"),
        # It was told to end by somebody else than the main process.
        (Report(accepts=False), 0.0, "a worker is ending"),
    ],
)
def test_a_worker_that_accepts_nothing_keeps_no_other_from_accepting(report, age, problem):
    """Case J108, Case J114."""
    now = time.monotonic()
    worker = Worker(None, -1, now - age, reported_at=now - age, latest=report)
    one, replaced, admin = (
        Slot("public", 0, -1, worker),
        Slot("public", 1, -1),
        Slot("admin", 0, -1),
    )
    generation = Generation(None, {}, {}, [one, replaced, admin])
    assert one.find_problems() == tuple(filter(None, [problem]))
    assert generation.has_others_that_serve(replaced) == one.serves() == (not problem)
    assert replaced.find_problems() == ("a worker is not running yet",)
    assert not generation.has_others_that_serve(admin)
    assert not generation.has_others_that_serve(one)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_is_listened_on_or_named_in_the_refusal(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.create_server((host, 0), family=family)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServingError) as caught:
            open_listener(ServerSettings(host=host, port=port))
        assert f"{host} port {port} cannot be used" in str(caught.value)
    listener = open_listener(ServerSettings(host=host, port=port))
    with closing(listener), socket.create_connection((host, port), 5) as connection:
        accepted, _ = listener.accept()
        assert accepted.getpeername() == connection.getsockname()
        accepted.close()


def test_a_changed_backlog_keeps_the_socket_and_a_host_that_overlaps_names_the_restart():
    def settings(**server):
        listener = ServerSettings(**server)
        return SimpleNamespace(listeners=lambda: {"public": listener})

    first = open_listener(ServerSettings(host="127.0.0.1", port=0))
    port = first.getsockname()[1]
    with closing(first):
        before, opened = settings(host="127.0.0.1", port=port), {"public": (first,)}
        changed = settings(host="127.0.0.1", port=port, backlog=4)
        assert open_all(changed, before, opened) == opened
        with pytest.raises(ServingError, match="this server listens on that port, restart it"):
            open_all(settings(host="0.0.0.0", port=port), before, opened)
        with pytest.raises(ServingError, match="stop the program that listens there"):
            open_all(settings(host="0.0.0.0", port=port))
