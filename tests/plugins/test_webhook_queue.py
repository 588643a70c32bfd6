"""The events of webhooks in files: of the queue, and of processes that were killed."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

from click.testing import CliRunner

from plugins.webhooks.command import make_command
from plugins.webhooks.inbox import Inbox, _IncomingFile
from plugins.webhooks.queue import _FIND, DeliveryQueue
from support.webhooks import eventually, message, stored


def test_what_a_process_could_not_send_is_sent_by_the_next(tmp_path):
    queue = DeliveryQueue(tmp_path / "webhooks.db", 100)
    queue.add(message(["siem"], "msg_1"))
    claimed = queue.claim("siem")
    assert claimed.message_id == "msg_1"
    assert queue.claim("siem") is None, "another process has it"
    queue.postpone(claimed, "broken off", seconds=0, is_dead=False)
    other = DeliveryQueue(tmp_path / "webhooks.db", 100)
    delivery = other.claim("siem")
    assert (delivery.body, delivery.attempts, delivery.error) == (b"{}", 1, "broken off")
    other.remove(delivery)
    assert other.count() == []
    assert (tmp_path / "webhooks.db").stat().st_mode & 0o777 == 0o600


def test_what_was_stored_while_the_clock_was_ahead_is_sent_when_it_is_right(tmp_path, monkeypatch):
    queue = DeliveryQueue(tmp_path / "webhooks.db", 100)
    right = time.time()
    with monkeypatch.context() as leap:
        leap.setattr("plugins.webhooks.queue.time.time", lambda: right + 7_200)
        queue.add(message(["siem"], "msg_1"))
    claimed = queue.claim("siem")
    assert claimed.message_id == "msg_1"
    queue.postpone(claimed, "broken off", seconds=3_000, is_dead=False)
    assert queue.claim("siem") is None, "an ordinary pause lasts"


def test_what_failed_is_sent_before_what_came_later_once_it_is_hastened(tmp_path):
    queue = DeliveryQueue(tmp_path / "webhooks.db", 100)
    queue.add_all(message(["siem"], f"old_{number}") for number in range(3))
    while (delivery := queue.claim("siem")) is not None:
        queue.postpone(delivery, "no answer", seconds=3_000, is_dead=False)
    queue.add(message(["siem"], "new"))
    queue.hasten("siem")
    claimed = [queue.claim("siem").message_id for _ in range(4)]
    assert claimed == ["old_0", "old_1", "old_2", "new"]
    assert queue.claim("siem") is None


def test_a_claim_sorts_none_of_what_waits(tmp_path):
    """With 100,000 events that wait, each claim would take 26 ms instead of 0.3."""
    queue = DeliveryQueue(tmp_path / "webhooks.db", 100)
    queue.add(message(["siem"], "msg_1"))
    with closing(sqlite3.connect(tmp_path / "webhooks.db")) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {_FIND}", ("siem", 0.0, 0.0)).fetchall()
    searches = [step for *_, step in plan if "delivery" in step]
    assert ["delivery_due" in step for step in searches] == [True, True]
    assert not [step for *_, step in plan if "B-TREE" in step]


def test_events_given_up_leave_room_and_the_oldest_are_removed(tmp_path):
    queue = DeliveryQueue(tmp_path / "webhooks.db", 2)
    for number in range(4):
        queue.add(message(["siem"], f"msg_{number}"))
        queue.postpone(queue.claim("siem"), "gone", seconds=0, is_dead=True)
    assert [each.message_id for each in queue.list_dead(10)] == ["msg_3", "msg_2"]
    queue.add(message(["siem"], "msg_4"))
    run = CliRunner()
    purge = run.invoke(make_command(queue, ["siem"]), ["purge", "siem"])
    assert purge.output == "2 events of siem were removed.\n"
    assert queue.list_dead(10) == []
    assert queue.claim("siem").message_id == "msg_4"


KILLED = """
import os, sqlite3, sys
from pathlib import Path
from plugins.webhooks.inbox import Inbox
from plugins.webhooks.queue import DeliveryQueue, Message

path = Path(sys.argv[1])
queue = DeliveryQueue(path, 1000)
queue.count()
other = sqlite3.connect(path, isolation_level=None)
other.execute("BEGIN IMMEDIATE")
inbox = Inbox(path, queue, stored=print, lost=print)
inbox.open()
for number in range(300):
    inbox.add(Message(["siem"], f"msg_{number}", "client.changed", b"x" * 10_000))
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_had_taken_is_stored_by_the_next_one_once_and_in_order(tmp_path):
    """The events of the killed process are three parts of its file; its last line is torn."""
    path = tmp_path / "webhooks.db"
    command = [sys.executable, "-c", KILLED, str(path)]
    killed = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (left,) = (tmp_path / "webhooks.db.incoming").iterdir()
    with left.open("ab") as file:
        file.write(b'[["siem"], "msg_torn", "client.cha')
    queue, lost = DeliveryQueue(path, 1_000), []
    inboxes = [
        Inbox(path, queue, stored=lambda _: None, lost=lambda *each: lost.append(each))
        for _ in range(2)
    ]
    for inbox in inboxes:
        inbox.open()
    eventually(lambda: not left.exists())
    for inbox in inboxes:
        inbox.close()
    ids = [name for (name,) in stored(tmp_path, "message_id")]
    assert ids == [f"msg_{number}" for number in range(300)]
    assert list(left.parent.iterdir()) == []
    assert lost == []


def test_a_file_whose_storing_failed_is_continued_and_one_that_was_emptied_is_left(tmp_path):
    path, stored_ids = tmp_path / "webhooks.db", []

    class FailingQueue(DeliveryQueue):
        """Takes the first part of a file, fails once, and takes the rest."""

        calls = 0

        def add_all(self, messages):
            FailingQueue.calls += 1
            if FailingQueue.calls == 2:
                raise sqlite3.OperationalError("database is locked")
            stored_ids.extend(each.message_id for each in messages)
            return super().add_all(messages)

    folder = tmp_path / "webhooks.db.incoming"
    folder.mkdir()
    lines = [json.dumps([["siem"], f"msg_{n}", "a.b", "x" * 10_000]) for n in range(250)]
    (folder / "1-left").write_text("\n".join(lines) + "\n")
    (folder / "2-left").write_text(json.dumps([["siem"], "msg_last", "a.b", "{}"]) + "\n")
    inbox = Inbox(path, FailingQueue(path, 1_000), stored=lambda _: None, lost=lambda *_: None)
    inbox.open()
    eventually(lambda: len(stored_ids) == 251)
    inbox.close()
    assert stored_ids == [*(f"msg_{n}" for n in range(250)), "msg_last"]
    (folder / "3-left").write_text("")
    emptied = _IncomingFile.adopt(folder / "3-left")
    emptied.append(message(["siem"], "msg_x"))
    (folder / "3-left").write_text("")
    assert emptied.has_more
    assert emptied.read() == []
    emptied.forget()
    assert not emptied.has_more
    emptied.close(is_done=True)
