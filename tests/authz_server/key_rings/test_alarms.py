"""Alarms about keys: each is recorded, and none so often that records become useless."""

import pytest

from authz_server.audit.events import KeyAlarm
from authz_server.audit.notifier import AuditUnavailable
from authz_server.key_rings.alarms import KeyAlarms
from keys.events import (
    Alarm,
    BackendAnswered,
    BackendFailed,
    BatchSent,
    SignatureDiscarded,
    Signed,
    UnknownKidPresented,
)


class Watch:
    def __init__(self) -> None:
        self.seconds, self.recorded = 0.0, []
        self.receive = KeyAlarms(self.recorded.append, monotonic=lambda: self.seconds).receive

    def take(self) -> list[tuple[str, str, str]]:
        recorded, self.recorded[:] = list(self.recorded), []
        return [(event.alarm, event.subject, event.detail) for event in recorded]


@pytest.fixture
def watch():
    return Watch()


def test_an_alarm_is_recorded_once_a_minute_for_each_subject(watch):
    for _ in range(3):
        watch.receive(Alarm("rotation.failed", "es256", "denied"))
        watch.receive(Alarm("rotation.failed", "rs256", "denied"))
        watch.receive(Alarm("node.behind", "es256", "late"))
    assert watch.take() == [
        ("rotation.failed", "es256", "denied"),
        ("rotation.failed", "rs256", "denied"),
        ("node.behind", "es256", "late"),
    ]
    watch.seconds = 59.9
    watch.receive(Alarm("rotation.failed", "es256", "denied"))
    assert watch.take() == []
    watch.seconds = 60
    watch.receive(Alarm("rotation.failed", "es256", "still denied"))
    assert watch.take() == [("rotation.failed", "es256", "still denied")]


def test_a_discarded_signature_is_an_alarm(watch):
    watch.receive(SignatureDiscarded("es256", "kid-1"))
    assert watch.take() == [("sign.mismatch", "kid-1", "a signature of es256 was discarded")]


def test_a_backend_is_recorded_when_it_fails_and_when_it_answers_again(watch):
    watch.receive(BackendAnswered("transit://a/b"))
    assert watch.take() == []
    for reason in ("sealed", "refused"):
        watch.receive(BackendFailed("transit://a/b", reason))
    watch.receive(BackendAnswered("kv://a/b"))
    assert watch.take() == [("backend.down", "transit://a/b", "sealed")]
    for _ in range(2):
        watch.receive(BackendAnswered("transit://a/b"))
    assert watch.take() == [("backend.up", "transit://a/b", "it answers again")]
    watch.receive(BackendFailed("transit://a/b", "sealed again"))
    assert watch.take() == [("backend.down", "transit://a/b", "sealed again")]


def test_nothing_is_raised_where_nothing_can_be_recorded(caplog):
    def refuse(_event: KeyAlarm) -> None:
        raise AuditUnavailable("no space")

    alarms = KeyAlarms(refuse)
    alarms.receive(SignatureDiscarded("es256", "kid-1"))
    alarms.receive(BackendFailed("transit://a/b", "sealed"))
    assert "sign.mismatch of kid-1 is not recorded: audit: no space" in caplog.text
    assert "backend.down of transit://a/b is not recorded" in caplog.text


def test_what_is_recorded_is_logged_for_the_operator_too(watch, caplog):
    with caplog.at_level("WARNING", "authz_server.key_rings.alarms"):
        watch.receive(Alarm("rotation.failed", "es256", "the Vault is sealed"))
        watch.receive(Alarm("rotation.failed", "es256", "the Vault is sealed"))
        watch.receive(SignatureDiscarded("es256", "some-kid"))
        watch.receive(BackendFailed("transit://a/b", "refused"))
    assert caplog.messages == [
        "rotation.failed: es256: the Vault is sealed",
        "sign.mismatch: some-kid: a signature of es256 was discarded",
        "backend.down: transit://a/b: refused",
    ]


def test_an_event_without_an_alarm_is_not_received():
    assert not KeyAlarms.kinds & {Signed, BatchSent, UnknownKidPresented}
