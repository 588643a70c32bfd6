"""A receiver of webhooks that fails is left alone, and gets its events afterwards."""

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from authz_server.clients.outbound import FetchError, Reply
from plugins.webhooks import plugin
from plugins.webhooks.command import make_command
from plugins.webhooks.plugin import REFUSALS_OF_FAILURE, Sender
from plugins.webhooks.queue import DeliveryQueue
from plugins.webhooks.receivers import Receiver
from support.webhooks import eventually, message, stored

RECEIVER = Receiver("siem", "https://siem.example", ("*",), b"a key of a receiver, long enough")


class Services:
    """Answers each POST with the next of `answers`; `sent` has the times of the attempts."""

    def __init__(self, *answers):
        self.answers = [*answers]
        self.sent = []
        self.failures = []

    def post(self, *_, **__):
        self.sent.append(time.monotonic())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def report_failure(self, *failure):
        self.failures.append(failure)


@pytest.fixture
def queue(tmp_path):
    queue = DeliveryQueue(tmp_path / "webhooks.db", 1_000)
    yield queue
    queue.close()


@pytest.fixture
def run(queue, monkeypatch):
    """Runs a sender of `services` for the events that are in the queue then."""
    monkeypatch.setattr(plugin, "POLL_SECONDS", 0.02)
    senders = []

    def run(services, events=1):
        queue.add_all(message(["siem"], f"msg_{number}") for number in range(events))
        senders.append(Sender(RECEIVER, queue, services, 3_600))
        return senders[-1]

    yield run
    for sender in senders:
        sender.stop()


@pytest.mark.parametrize(
    "answer",
    [FetchError("no answer"), Reply(b"", "", 500), Reply(b"", "", 404), Reply(b"", "", 302)],
    ids=str,
)
def test_a_receiver_that_is_away_is_not_tried_for_each_event(run, answer, monkeypatch):
    monkeypatch.setattr(plugin, "FIRST_RETRY_SECONDS", 10.0)
    services = Services(answer)
    run(services, events=100)
    eventually(lambda: services.sent)
    time.sleep(0.4)
    assert len(services.sent) == 1


def test_a_receiver_that_is_away_is_tried_by_one_process_alone(
    run, queue, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(plugin, "FIRST_RETRY_SECONDS", 10.0)
    services = Services(FetchError("no answer"))
    run(services, events=10)
    # By then the attempt that failed is noted, not only made.
    eventually(lambda: "siem accepts no webhooks" in caplog.text)
    with closing(DeliveryQueue(tmp_path / "webhooks.db", 1_000)) as other:
        assert other.claim("siem") is None
        queue.add(message(["other"], "msg_of_another"))
        assert other.claim("other").message_id == "msg_of_another"


def test_attempts_that_fail_at_the_same_time_are_one_failure(queue):
    asked = []

    def pause(failures):
        asked.append(failures)
        return 0.05

    assert queue.leave_alone("siem", pause)
    assert not queue.leave_alone("siem", pause)
    time.sleep(0.06)
    assert not queue.leave_alone("siem", pause)
    assert asked == [0, 0, 1]


def test_a_silence_that_a_wrong_clock_stored_ends(queue):
    queue.add(message(["siem"], "one"))
    queue.leave_alone("siem", lambda _: 7_200.0)
    assert queue.claim("siem").message_id == "one"


def test_a_receiver_that_is_left_alone_is_tried_when_an_operator_asks_for_it(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr(plugin, "FIRST_RETRY_SECONDS", 60.0)
    services = Services(FetchError("no answer"), Reply(b"", "", 200))
    run(services, events=3)
    eventually(lambda: services.sent)
    with closing(DeliveryQueue(tmp_path / "webhooks.db", 1_000)) as of_the_command:
        command = make_command(of_the_command, ["siem"])
        assert CliRunner().invoke(command, ["retry", "siem"]).output == (
            "3 events of siem are due now.\n"
        )
    eventually(lambda: not stored(tmp_path, "id"))


def age(tmp_path, seconds):
    with closing(sqlite3.connect(tmp_path / "webhooks.db", isolation_level=None)) as connection:
        connection.execute("UPDATE delivery SET created_at = created_at - ?", (seconds,))


def test_what_is_too_old_is_given_up_while_its_receiver_is_left_alone(
    run, queue, tmp_path, monkeypatch, caplog
):
    """No more than the first was tried."""
    monkeypatch.setattr(plugin, "FIRST_RETRY_SECONDS", 60.0)
    queue.add_all(message(["siem", "other"], f"old_{number}") for number in range(5))
    age(tmp_path, 3_601)
    services = Services(FetchError("no answer"))
    run(services, events=2)
    eventually(lambda: services.failures)
    assert stored(tmp_path, "message_id", "receiver", "is_dead", "error") == [
        ("old_0", "siem", 1, "no answer"),
        ("old_0", "other", 0, ""),
        *(
            row
            for number in range(1, 5)
            for row in ((f"old_{number}", "siem", 1, ""), (f"old_{number}", "other", 0, ""))
        ),
        ("msg_0", "siem", 0, ""),
        ("msg_1", "siem", 0, ""),
    ]
    assert services.failures == [("webhooks", "event_happened", "undelivered")]
    assert caplog.text.count("5 events are not delivered to siem within 1 hours; see") == 1


def test_what_became_too_old_while_no_process_ran_is_tried(run, queue, tmp_path):
    queue.add_all(message(["siem"], f"old_{number}") for number in range(5))
    age(tmp_path, 3_601)
    services = Services(Reply(b"", "", 200))
    run(services, events=0)
    eventually(lambda: not stored(tmp_path, "id"))
    assert len(services.sent) == 5
    assert services.failures == []


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_an_event_that_is_refused_holds_up_no_other(run, status, caplog):
    refused = [Reply(b"", "", status)] * (REFUSALS_OF_FAILURE - 1)
    services = Services(*refused, Reply(b"", "", 200), *refused, Reply(b"", "", 200))
    run(services, events=2 * REFUSALS_OF_FAILURE)
    eventually(lambda: len(services.sent) == 2 * REFUSALS_OF_FAILURE)
    assert caplog.text.count("does not accept the event client.changed") == 18
    assert "accepts no webhooks" not in caplog.text


def test_a_receiver_that_refuses_every_event_is_left_alone(run, tmp_path, monkeypatch, caplog):
    """As one does that has another secret."""
    monkeypatch.setattr(plugin, "FIRST_RETRY_SECONDS", 0.5)
    services = Services(Reply(b"", "", 400))
    run(services, events=100)
    eventually(lambda: len(services.sent) == REFUSALS_OF_FAILURE)
    time.sleep(0.2)
    assert len(services.sent) == REFUSALS_OF_FAILURE
    assert caplog.text.count("siem accepts no webhooks: the answer has status 400") == 1
    assert len(caplog.records) == REFUSALS_OF_FAILURE
    services.answers = [Reply(b"", "", 200)]
    eventually(lambda: not stored(tmp_path, "id"))


def test_a_receiver_that_is_gone_is_not_tried_for_each_event(run, tmp_path, monkeypatch):
    monkeypatch.setattr(plugin, "FIRST_RETRY_SECONDS", 10.0)
    services = Services(Reply(b"", "", 410))
    run(services, events=10)
    eventually(lambda: services.failures)
    time.sleep(0.2)
    assert len(services.sent) == 1
    assert stored(tmp_path, "is_dead").count((1,)) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_is_left_alone_as_long_as_it_asks(run, tmp_path, status, monkeypatch):
    monkeypatch.setattr(plugin, "FIRST_RETRY_SECONDS", 0.01)
    services = Services(Reply(b"", "", status, 0.6))
    run(services)
    eventually(lambda: len(services.sent) == 2)
    assert services.sent[1] - services.sent[0] >= 0.6
    services.answers = [Reply(b"", "", 200)]
    eventually(lambda: not stored(tmp_path, "id"))


def test_a_receiver_may_not_ask_for_days(run, tmp_path):
    services = Services(Reply(b"", "", 503, 999_999_999.0))
    run(services)
    eventually(lambda: (1,) in stored(tmp_path, "attempts"))
    ((due_at,),) = stored(tmp_path, "due_at")
    assert time.time() + 3_500 < due_at < time.time() + 3_601


@pytest.mark.parametrize(("failures", "left"), [(1, 30), (2, 30), (3, 0)])
def test_all_that_waits_is_sent_once_a_receiver_is_back(  # noqa: PLR0913, PLR0917 - fixtures
    run, queue, tmp_path, monkeypatch, failures, left
):
    """Events that failed often would wait for an hour; one failure among others is none of it."""
    monkeypatch.setattr(plugin, "FIRST_RETRY_SECONDS", 0.02)
    queue.add_all(message(["siem"], f"old_{number}") for number in range(30))
    while (delivery := queue.claim("siem")) is not None:
        queue.postpone(delivery, "no answer", seconds=3_000, is_dead=False)
    services = Services(*[FetchError("no answer")] * failures, Reply(b"", "", 200))
    run(services)
    eventually(lambda: len(services.sent) == failures + 1 + 30 - left)
    time.sleep(0.2)
    assert len(stored(tmp_path, "id")) == left


def test_a_closed_queue_has_no_open_file_and_opens_again(queue, tmp_path):
    def files():
        links = [os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()]
        return [link for link in links if link.startswith(str(tmp_path))]

    queue.add(message(["siem"], "one"))
    assert files()
    queue.close()
    assert files() == []
    assert queue.claim("siem").message_id == "one"
    queue.close()
    assert files() == []
