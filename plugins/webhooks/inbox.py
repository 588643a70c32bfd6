"""Takes events without waiting for the disk, and stores them in the queue on a thread of its own.

An event is appended to a file of this process by one write. What was written is kept by the
operating system, even if the process is killed: the next process stores it. A thread stores the
events of the file in the queue, many in one transaction that is on disk, and empties the file.
"""

import fcntl
import json
import logging
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from plugins.webhooks.queue import DeliveryQueue, Message, QueueFullError

logger = logging.getLogger("authz_server.plugins.webhooks")

#: The size of the file up to which it takes events while the queue cannot be used.
MAXIMUM_BYTES = 64 * 1024 * 1024
#: How many events are held in memory while the file cannot be written either.
MAXIMUM_HELD = 10_000
#: How much of the file is in memory at a time.
_PART_BYTES = 1024 * 1024
#: How long the thread waits before it tries again.
_PAUSE_SECONDS = 1.0
#: Begins the name of a file that has no lock yet.
_NEW = "."


class Inbox:
    """The events of this process that are not in the queue yet.

    Args:
        path: the file of the queue; the files of the processes are in a folder beside it.
        queue: where the events are stored.
        stored: called with the receivers of stored events.
        lost: called with a receiver and the number of events that its full queue did not take.
    """

    def __init__(
        self,
        path: Path,
        queue: DeliveryQueue,
        *,
        stored: Callable[[Collection[str]], None],
        lost: Callable[[str, int], None],
    ) -> None:
        self._folder = path.with_name(f"{path.name}.incoming")
        self._queue = queue
        self._stored = stored
        self._lost = lost
        self._held: deque[Message] = deque()
        self._file: _IncomingFile | None = None
        self._left: _IncomingFile | None = None
        self._filled = threading.Event()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="webhook-inbox", daemon=True)

    def open(self) -> None:
        """Begin to take events, and to store those that ended processes have left."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._file = _IncomingFile.create(self._folder)
        except OSError as error:
            logger.warning("webhooks are held in memory until they are stored: %s", error)
        self._thread.start()

    def add(self, message: Message) -> None:
        """Take an event; it is in the file of this process when this returns.

        Raises:
            QueueFullError: too many events wait to be stored.
        """
        try:
            if self._file is None:
                raise OSError("there is no file")  # noqa: TRY301 - held as after any other error
            self._file.append(message)
        except OSError as error:
            if len(self._held) >= MAXIMUM_HELD:
                raise QueueFullError(f"{MAXIMUM_HELD} events wait in memory: {error}") from error
            self._held.append(message)
        self._filled.set()

    def close(self) -> None:
        """Store what is left, and take no further event."""
        self._is_closed = True
        self._filled.set()
        self._thread.join()
        is_done = self._store_all()
        if self._held:
            logger.error("%d events that were held in memory are lost", len(self._held))
        if self._file is not None:
            self._file.close(is_done=is_done)
        if self._left is not None:
            self._left.close(is_done=False)

    def _run(self) -> None:
        is_adopted = False
        while not self._is_closed:
            is_adopted = is_adopted or self._perform(self._adopt)
            is_stored = self._store_all()
            self._filled.wait(None if is_adopted and is_stored else _PAUSE_SECONDS)
            self._filled.clear()

    def _store_all(self) -> bool:
        """Store what was taken; return False if some is left."""
        return self._perform(self._store_file) and self._perform(self._store_held)

    def _perform(self, act: Callable[[], None]) -> bool:
        try:
            act()
        except (sqlite3.Error, OSError) as error:
            logger.warning("the queue of webhooks cannot be used: events wait: %s", error)
        except Exception:
            logger.exception("webhooks are not stored at present")
        else:
            return True
        return False

    def _store_file(self) -> None:
        if self._file is not None:
            self._store_from(self._file)

    def _store_held(self) -> None:
        while self._held:
            messages = [self._held[place] for place in range(min(len(self._held), 100))]
            self._store(messages)
            for _ in messages:
                self._held.popleft()

    def _adopt(self) -> None:
        """Store what processes have left that ended without doing so."""
        # One that was begun before a failure is continued where it was.
        self._store_left()
        for path in sorted(self._folder.glob("[!.]*")):
            self._left = _IncomingFile.adopt(path)
            self._store_left()

    def _store_left(self) -> None:
        if self._left is not None:
            self._store_from(self._left)
            self._left.close(is_done=True)
            self._left = None

    def _store_from(self, file: "_IncomingFile") -> None:
        while file.has_more:
            self._store(file.read())
            file.forget()

    def _store(self, messages: Sequence[Message]) -> None:
        for receiver, number in self._queue.add_all(messages).items():
            self._lost(receiver, number)
        self._stored({name for message in messages for name in message.receivers})


class _IncomingFile:
    """A file of events, one a line. It is locked as long as its process runs.

    Args:
        path: its path.
        descriptor: opened to read and to append, and locked.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._offset = self._next_offset = 0
        self._lock = threading.Lock()

    @classmethod
    def create(cls, folder: Path) -> "_IncomingFile":
        """Return a new file. It has its name once it is locked.

        Raises:
            OSError: it cannot be made.
        """
        name = f"{os.getpid()}-{os.urandom(8).hex()}"
        path, new = folder / name, folder / f"{_NEW}{name}"
        descriptor = os.open(new, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        new.rename(path)
        return cls(path, descriptor)

    @classmethod
    def adopt(cls, path: Path) -> "_IncomingFile | None":
        """Return the file of an ended process; None: its process runs, or it is gone.

        Raises:
            OSError: it cannot be read.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_nlink == 0:
            # Another process has just done so.
            os.close(descriptor)
            return None
        return cls(path, descriptor)

    @property
    def has_more(self) -> bool:
        """Whether there are events that were not forgotten."""
        return self._offset < self._size

    def append(self, message: Message) -> None:
        """Write an event.

        Raises:
            OSError: it cannot be written, and nothing of it is.
        """
        line = json.dumps([*message[:3], message.body.decode()]).encode() + b"\n"
        with self._lock:
            if self._size + len(line) > MAXIMUM_BYTES:
                raise OSError(f"{MAXIMUM_BYTES} bytes wait to be stored")
            written = os.write(self._descriptor, line)
            if written < len(line):
                os.ftruncate(self._descriptor, self._size)
                raise OSError("the disk is full")
            self._size += written

    def read(self) -> list[Message]:
        """Return the next events, some of them at a time."""
        left = self._size - self._offset
        wanted, end = _PART_BYTES, 0
        while end == 0:
            data = os.pread(self._descriptor, min(wanted, left), self._offset)
            if not data:
                # Another program has emptied the file.
                self._next_offset = self._size
                return []
            # What follows the last line was not written to its end.
            end = len(data) if wanted > left and b"\n" not in data else data.rfind(b"\n") + 1
            wanted *= 2
        self._next_offset = self._offset + end
        return [message for line in data[:end].splitlines() if (message := _read(line))]

    def forget(self) -> None:
        """Forget the events that were read last; they are stored."""
        with self._lock:
            self._offset = self._next_offset
            if self._offset == self._size:
                os.ftruncate(self._descriptor, 0)
                self._size = self._offset = 0

    def close(self, *, is_done: bool) -> None:
        """Close the file, and delete it if nothing in it is left to do."""
        if is_done:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def _read(line: bytes) -> Message | None:
    """Return the event of a line; None for one that was not written to its end."""
    try:
        receivers, message_id, event, body = json.loads(line)
        return Message(receivers, message_id, event, body.encode())
    except (ValueError, AttributeError, TypeError):
        logger.error("an event in the file of an ended process cannot be read")  # noqa: TRY400 - no fault
        return None
