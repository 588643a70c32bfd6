"""A plugin that is notified and hangs, is slow or has too much to do holds up no request."""

import threading
import time

import pytest

from authz_server.audit.events import ClientChanged, ServerStarted
from authz_server.hookspecs import TokenDecision
from authz_server.plugin_manager import PluginManager
from authz_server.plugin_notifications import Notification, Notifications
from support.loaded_plugins import Available, plugin_with
from support.webhooks import eventually

SECONDS = 0.4
PATIENCE = 0.1
ISSUED = ClientChanged(actor="a", action="client.updated", client_id="client")


@pytest.fixture
def failures():
    return []


@pytest.fixture
def notifications(failures):
    def fail(notification, error):
        failures.append((notification.subject, str(error)))

    return Notifications(SECONDS, PATIENCE, fail)


def send(notifications, number, act, **options):
    notifications.send(Notification("event_happened", f"{number}", act), **options)


def test_a_quick_plugin_was_notified_when_the_sender_goes_on(notifications, failures):
    seen = []
    for number in range(100):
        send(notifications, number, lambda number=number: seen.append(number))
        assert seen[-1] == number
    assert failures == []


def test_a_slow_plugin_is_notified_in_order_by_a_thread_of_its_own(notifications, failures):
    seen = []

    def act(number):
        time.sleep(0.2 if number == 0 else 0.002)
        seen.append(number)

    began = time.monotonic()
    for number in range(50):
        send(notifications, number, lambda number=number: act(number))
    assert time.monotonic() - began < 0.2
    eventually(lambda: len(seen) == 50)
    assert seen == list(range(50))
    assert failures == []


def test_a_plugin_that_hangs_costs_its_sender_one_wait(notifications, failures):
    released = threading.Event()
    began = time.monotonic()
    for number in range(20):
        send(notifications, number, lambda: released.wait(60))
    assert time.monotonic() - began < 2 * PATIENCE
    # Each of four calls is given up, and further ones are not made.
    eventually(lambda: len(failures) == 20)
    assert failures[:4] == [(f"{n}", "it did not return within 0.4 s") for n in range(4)]
    assert {text for _, text in failures[4:]} == {"earlier calls have not returned yet"}
    released.set()
    seen = []
    eventually(lambda: send(notifications, 20, lambda: seen.append(1)) or seen)


def test_notifications_beyond_the_limit_are_failures(notifications, failures, monkeypatch):
    monkeypatch.setattr("authz_server.plugin_notifications.MAXIMUM_WAITING", 3)
    released, seen = threading.Event(), []
    for number in range(10):
        send(notifications, number, lambda number=number: released.wait(60) and seen.append(number))
    lost = [each for each in failures if each[1] == "3 notifications wait"]
    released.set()
    eventually(lambda: len(seen) + len(failures) == 10)
    assert len(lost) in {6, 7}, "the call under way may be counted among those that wait"


def test_a_plugin_that_was_slow_is_awaited_again_after_some_time(notifications, monkeypatch):
    monkeypatch.setattr("authz_server.plugin_notifications.QUIET_SECONDS", 0.05)
    send(notifications, 0, lambda: time.sleep(0.2))
    eventually(
        lambda: not [each for each in threading.enumerate() if each.name == "plugin-notifications"]
    )
    seen = []
    send(notifications, 1, lambda: seen.append(1))
    assert seen == [1]


def test_the_end_of_the_server_is_awaited_behind_what_waits(notifications):
    seen = []
    send(notifications, 0, lambda: time.sleep(0.2))
    send(notifications, 1, lambda: seen.append(1))
    send(notifications, 2, lambda: seen.append(2), awaited=True)
    assert seen == [1, 2]


def test_an_event_hook_that_hangs_refuses_no_token():
    class Plugin(plugin_with("token_claims", lambda: {"a": 1})):
        event_happened = plugin_with("event_happened", lambda: time.sleep(60)).event_happened

    manager = PluginManager(
        ["bad"], {}, [Available("bad", Plugin)], call_seconds=SECONDS, patience_seconds=PATIENCE
    )
    began = time.monotonic()
    for _ in range(10):
        manager.emit(ISSUED)
    assert time.monotonic() - began < 2 * PATIENCE
    request = TokenDecision("client", "client_credentials", ("a",), ("https://a.example",), 900)
    time.sleep(5 * SECONDS)
    assert manager.token_claims(request) == {"a": 1}


def test_the_start_of_the_server_is_awaited():
    manager = PluginManager(
        ["slow"],
        {},
        [Available("slow", plugin_with("event_happened", lambda: time.sleep(2 * PATIENCE)))],
        call_seconds=SECONDS,
        patience_seconds=PATIENCE,
    )
    began = time.monotonic()
    manager.emit(ServerStarted(version="1", issuer="https://authz.example", process_id=1))
    assert time.monotonic() - began >= 2 * PATIENCE
