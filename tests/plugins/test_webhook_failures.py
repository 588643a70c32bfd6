"""How a receiver of webhooks that fails is left alone, and how it gets its events afterwards."""

import os
import time
from pathlib import Path

import pytest

from authz_server.clients.outbound import FetchError, Reply
from plugins.webhooks import plugin
from plugins.webhooks.plugin import Sender
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


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_an_event_that_is_refused_holds_up_no_other(run, status, caplog):
    services = Services(Reply(b"", "", status))
    run(services, events=20)
    eventually(lambda: len(services.sent) == 20)
    assert caplog.text.count("does not accept the event client.changed") == 20


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
