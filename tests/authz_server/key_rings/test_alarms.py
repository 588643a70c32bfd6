"""Alarms about keys: each is told, and none so often that nobody reads them."""

import pytest

from authz_server.audit.events import KeyAlarm
from authz_server.audit.sink import AuditUnavailable
from authz_server.key_rings.alarms import KeyObserver


class Counter:
    """Keeps every call, by name."""

    def __init__(self) -> None:
        self.calls = []

    def __getattr__(self, name):
        return lambda *values: self.calls.append((name, *values))


class Watch:
    def __init__(self) -> None:
        self.seconds, self.told, self.counter = 0.0, [], Counter()
        self.observer = KeyObserver(self.told.append, self.counter, monotonic=lambda: self.seconds)

    def take(self) -> list[tuple[str, str, str]]:
        told, self.told[:] = list(self.told), []
        return [(event.alarm, event.subject, event.detail) for event in told]


@pytest.fixture
def watch():
    return Watch()


def test_everything_is_passed_on_to_whoever_counts(watch):
    calls = [
        ("signed", "transit", "ES256", "ok", 0.001),
        ("mismatch", "es256", "kid-1"),
        ("unknown_kid",),
        ("backend_up", "transit://transit/a"),
        ("backend_down", "transit://transit/a", "sealed"),
        ("vault_token", "main", 3.0, 60.0),
        ("batch", 17),
        ("viewed", "es256"),
        ("alarm", "node.behind", "host/1", "late"),
    ]
    for name, *values in calls:
        getattr(watch.observer, name)(*values)
    assert watch.counter.calls == calls


def test_an_alarm_is_told_once_a_minute_for_each_subject(watch):
    for _ in range(3):
        watch.observer.alarm("rotation.failed", "es256", "denied")
        watch.observer.alarm("rotation.failed", "rs256", "denied")
        watch.observer.alarm("node.behind", "es256", "late")
    assert watch.take() == [
        ("rotation.failed", "es256", "denied"),
        ("rotation.failed", "rs256", "denied"),
        ("node.behind", "es256", "late"),
    ]
    watch.seconds = 59.9
    watch.observer.alarm("rotation.failed", "es256", "denied")
    assert watch.take() == []
    watch.seconds = 60
    watch.observer.alarm("rotation.failed", "es256", "still denied")
    assert watch.take() == [("rotation.failed", "es256", "still denied")]


def test_a_dropped_signature_is_an_alarm(watch):
    watch.observer.mismatch("es256", "kid-1")
    assert watch.take() == [("sign.mismatch", "kid-1", "a signature of es256 was discarded")]


def test_a_backend_is_told_of_when_it_goes_and_when_it_comes(watch):
    watch.observer.backend_up("transit://a/b")
    assert watch.take() == []
    for reason in ("sealed", "refused"):
        watch.observer.backend_down("transit://a/b", reason)
    watch.observer.backend_up("kv://a/b")
    assert watch.take() == [("backend.down", "transit://a/b", "sealed")]
    for _ in range(2):
        watch.observer.backend_up("transit://a/b")
    assert watch.take() == [("backend.up", "transit://a/b", "it answers again")]
    watch.observer.backend_down("transit://a/b", "sealed again")
    assert watch.take() == [("backend.down", "transit://a/b", "sealed again")]


def test_nothing_is_raised_where_nothing_can_be_recorded(caplog):
    def refuse(_event: KeyAlarm) -> None:
        raise AuditUnavailable("no space")

    observer = KeyObserver(refuse)
    observer.mismatch("es256", "kid-1")
    observer.backend_down("transit://a/b", "sealed")
    assert "sign.mismatch of kid-1 is not recorded: audit: no space" in caplog.text
    assert "backend.down of transit://a/b is not recorded" in caplog.text


def test_what_is_recorded_is_logged_for_the_operator_too(watch, caplog):
    with caplog.at_level("WARNING", "authz_server.key_rings.alarms"):
        watch.observer.alarm("rotation.failed", "es256", "the Vault is sealed")
        watch.observer.alarm("rotation.failed", "es256", "the Vault is sealed")
        watch.observer.mismatch("es256", "some-kid")
        watch.observer.backend_down("transit://a/b", "refused")
        watch.observer.signed("transit", "ES256", "ok", 0.001)
    assert caplog.messages == [
        "rotation.failed: es256: the Vault is sealed",
        "sign.mismatch: some-kid: a signature of es256 was discarded",
        "backend.down: transit://a/b: refused",
    ]
