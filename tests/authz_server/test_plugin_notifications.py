"""A plugin that is notified and hangs, is slow or has too much to do holds up no request."""

import threading
import time

import pytest

from authz_server.assembly.base import BaseServices
from authz_server.audit.events import ClientChanged, ServerStarted, ServerStopped, TokenRevoked
from authz_server.database.orm import open_database
from authz_server.hookspecs import AnsweredRequest, TokenDecision, hookimpl
from authz_server.metrics.events import PluginFailed
from authz_server.plugin_manager import PluginManager
from authz_server.plugin_notifications import Notification, Notifications
from support.loaded_plugins import Available, plugin_with
from support.webhooks import eventually

#: No test waits as long, however busy the machine is.
LONG = 60.0
PATIENCE = 0.05
CHANGED = ClientChanged(actor="a", action="client.updated", client_id="client")
STOPPED = ServerStopped(process_id=1)
ANSWERED = AnsweredRequest("token", "/", 200, "ok", 0.0, 0.1, "id", "client", "192.0.2.1")
ABANDONED = "it did not return within 0.2 s"
LOSSES = "plugin bad is too slow: notifications lost: {}"


@pytest.fixture
def failures():
    return []


@pytest.fixture(autouse=True)
def released(monkeypatch):
    """An event that is set at the end, so that no call and no thread of a test is left."""
    monkeypatch.setattr("authz_server.plugin_notifications.QUIET_SECONDS", 0.1)
    event = threading.Event()
    yield event
    event.set()
    eventually(lambda: not threads())


@pytest.fixture
def notifications(failures):
    return make(failures)


def make(failures, seconds=LONG, patience=PATIENCE):
    return Notifications("bad", seconds, patience, failures.append)


def send(notifications, act, hook="event_happened", subject="client.changed", **options):
    notifications.send(Notification(hook, subject, act), **options)


def threads():
    return [each for each in threading.enumerate() if each.name == "plugin-notifications"]


def failed(kind, hook="event_happened"):
    return PluginFailed("bad", hook, kind)


def losses(caplog):
    return [each for each in caplog.messages if "too slow" in each]


def load(hook, function, failures, seconds=LONG):
    return PluginManager(
        ["bad"],
        {},
        [Available("bad", plugin_with(hook, function))],
        report=failures.append,
        call_seconds=seconds,
        patience_seconds=PATIENCE,
    )


def test_a_quick_plugin_was_notified_when_the_sender_goes_on(failures):
    notifications, seen = make(failures, patience=LONG / 2), []
    for number in range(100):
        send(notifications, lambda number=number: seen.append(number))
        assert seen[-1] == number
    assert failures == []


def test_a_slow_plugin_costs_one_wait_and_is_notified_in_order_by_a_thread(
    notifications, failures, released
):
    begun, seen = [], []

    def act(number):
        begun.append(number)
        released.wait(LONG)
        seen.append(number)

    for number in range(50):
        send(notifications, lambda number=number: act(number))
    # A sender that waits has begun its own call.
    assert begun == [0]
    released.set()
    eventually(lambda: len(seen) == 50)
    assert seen == begun == list(range(50))
    assert failures == []


def test_calls_that_hang_are_given_up_and_further_ones_are_lost(failures, caplog, released):
    notifications = make(failures, seconds=0.2)
    for _ in range(20):
        send(notifications, lambda: released.wait(LONG))
    eventually(lambda: len(failures) == 20)
    assert failures == [failed("timed_out")] * 4 + [failed("lost")] * 16
    # Requests wait again, and none for a call that is not made.
    eventually(lambda: not threads())
    logged = [*["a plugin failed"] * 4, LOSSES.format(1), LOSSES.format(16)]
    assert caplog.messages == logged
    assert {str(each.exc_info[1]) for each in caplog.records[:4]} == {ABANDONED}
    for _ in range(3):
        send(notifications, lambda: released.wait(LONG))
    eventually(lambda: not threads())
    assert caplog.messages == [*logged, LOSSES.format(1), LOSSES.format(3)]
    released.set()
    seen = []
    eventually(lambda: send(notifications, lambda: seen.append(1)) or seen)


def test_a_command_waits_for_each_notification_whatever_hangs(failures, caplog, released):
    notifications = make(failures, seconds=0.05, patience=None)
    for _ in range(6):
        send(notifications, lambda: released.wait(LONG))
    assert failures == [failed("timed_out")] * 4 + [failed("lost")] * 2
    assert losses(caplog) == [LOSSES.format(1)]
    assert not threads()


def test_requests_take_no_place_from_revocations(
    notifications, failures, caplog, released, monkeypatch
):
    monkeypatch.setattr("authz_server.plugin_notifications.MAXIMUM_WAITING", 3)
    seen = []
    send(notifications, lambda: released.wait(LONG))
    for number in range(10):
        send(notifications, lambda number=number: seen.append(number), "request_answered", "token")
    for kind in ("token", "client"):
        for _ in range(4):
            send(notifications, lambda kind=kind: seen.append(kind), "revocation_happened", kind)
    expected = [failed("lost", "request_answered")] * 7 + [
        failed("lost", "revocation_happened")
    ] * 2
    assert failures == expected
    assert losses(caplog) == [LOSSES.format(1)]
    released.set()
    eventually(lambda: not threads())
    assert seen == [0, 1, 2, "token", "token", "token", "client", "client", "client"]
    # The first loss is logged at once, the number at the end of the period.
    assert losses(caplog)[1:] == [LOSSES.format(9)]
    assert failures == expected


@pytest.mark.parametrize("act", [lambda: None, lambda: 1 / 0])
def test_a_plugin_that_was_slow_is_awaited_again_however_often_it_is_notified(
    act, notifications, released, monkeypatch
):
    monkeypatch.setattr("authz_server.plugin_notifications.QUIET_SECONDS", 0.5)
    send(notifications, lambda: released.wait(LONG))
    (thread,) = threads()
    released.set()
    eventually(lambda: send(notifications, act) or not thread.is_alive())


def test_a_plugin_without_notifications_is_awaited_again(notifications, released):
    send(notifications, lambda: released.wait(LONG))
    released.set()
    eventually(lambda: not threads())


def test_an_awaited_notification_comes_after_those_that_wait(notifications, released):
    seen = []
    send(notifications, lambda: released.wait(LONG))
    send(notifications, lambda: seen.append(1))
    threading.Timer(2 * PATIENCE, released.set).start()
    send(notifications, lambda: seen.append(2), awaited=True)
    assert seen == [1, 2]


def test_the_end_of_the_server_counts_what_is_left(failures, caplog, released, monkeypatch):
    monkeypatch.setattr("authz_server.plugin_notifications.END_SECONDS", 0.05)
    seen = []

    def hang(event):
        seen.append(event)
        if event is not STOPPED:
            released.wait(LONG)

    manager = load("event_happened", hang, failures, seconds=0.2)
    for _ in range(4):
        manager.emit(CHANGED)
    manager.emit(STOPPED)
    assert failures.count(failed("lost")) == 3
    assert losses(caplog) == [LOSSES.format(3)]
    assert seen == [CHANGED, STOPPED]
    # Nothing is left to a thread that ends with the process.
    manager.emit(CHANGED)
    assert failures.count(failed("timed_out")) == 2
    assert seen == [CHANGED, STOPPED, CHANGED]


@pytest.mark.parametrize("hook", ["event_happened", "request_answered"])
def test_the_end_of_the_server_waits_for_the_plugin(hook, failures, released, monkeypatch):
    monkeypatch.setattr("authz_server.plugin_notifications.END_SECONDS", LONG)
    seen = []

    def note(**value):
        released.wait(LONG)
        seen.append(value)

    functions = {
        "event_happened": lambda event: note(event=event),
        "request_answered": lambda request: note(request=request),
    }
    manager = load(hook, functions[hook], failures)
    for _ in range(3):
        manager.emit(CHANGED)
        manager.follow_request(ANSWERED)
    threading.Timer(2 * PATIENCE, released.set).start()
    manager.emit(STOPPED)
    expected = {
        "event_happened": [{"event": CHANGED}] * 3 + [{"event": STOPPED}],
        "request_answered": [{"request": ANSWERED}] * 3,
    }
    assert seen == expected[hook]
    assert failures == []


@pytest.mark.parametrize("hook", ["request_answered", "revocation_happened"])
def test_the_end_of_the_server_concerns_plugins_without_events(
    hook, failures, released, make_settings, monkeypatch
):
    monkeypatch.setattr("authz_server.plugin_notifications.END_SECONDS", 0.05)
    settings = make_settings(plugins={"enabled": ["bad"]})
    services = BaseServices(settings, open_database(settings.database))
    manager = load(hook, lambda: released.wait(LONG), failures)
    vars(services)["plugins"] = manager
    for _ in range(3):
        manager.follow_request(ANSWERED)
        services.notify(TokenRevoked(actor="a", client_id="client", jti="j"))
    services.notify(STOPPED)
    services.database.close()
    assert failures == [failed("lost", hook)] * 2


def test_an_event_hook_that_hangs_refuses_no_token(failures, released):
    class Plugin(plugin_with("token_claims", lambda: {"a": 1})):
        @hookimpl
        def event_happened(self):
            released.wait(LONG)

    manager = PluginManager(
        ["bad"],
        {},
        [Available("bad", Plugin)],
        report=failures.append,
        call_seconds=0.2,
        patience_seconds=PATIENCE,
    )
    for _ in range(10):
        manager.emit(CHANGED)
    eventually(lambda: failures == [failed("timed_out")] * 4 + [failed("lost")] * 6)
    request = TokenDecision("client", "client_credentials", ("a",), ("https://a.example",), 900)
    assert manager.token_claims(request) == {"a": 1}


def test_the_start_of_the_server_is_awaited(failures):
    seen = []

    def note():
        time.sleep(3 * PATIENCE)
        seen.append(1)

    manager = load("event_happened", note, failures)
    manager.emit(ServerStarted(version="1", issuer="https://authz.example", process_id=1))
    assert seen == [1]
