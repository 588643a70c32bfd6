"""The file of waiting webhooks, and waiting for what senders do."""

import sqlite3
import time
from contextlib import closing

from plugins.webhooks.queue import Message


def eventually(condition, seconds=10):
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def message(receivers, message_id):
    """Return an event for receivers."""
    return Message(receivers, message_id, "client.changed", b"{}")


def stored(tmp_path, *columns):
    """Return columns of the waiting events; none before the first is stored."""
    with closing(sqlite3.connect(tmp_path / "webhooks.db")) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'delivery'").fetchone():
            return []
        return connection.execute(f"SELECT {', '.join(columns)} FROM delivery").fetchall()  # noqa: S608
