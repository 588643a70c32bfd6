"""Calls that take long: one at a time, and those that read audit records for a limited time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from authz_server.admin.problems import Problem
from authz_server.audit.time_limit import ReadingTooLongError, reading_at_most

#: The longest time of a call, in seconds.
LONGEST_SECONDS = 20.0


class OneAtATime:
    """Lets one call of the process run at a time, so that a thread is left for other requests.

    Args:
        retry_after_seconds: when a refused caller may repeat the request.
        detail: the reason of the refusal.
    """

    def __init__(self, retry_after_seconds: int, detail: str) -> None:
        self._retry_after_seconds = retry_after_seconds
        self._detail = detail
        self._running = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Run the block as the one call.

        Raises:
            Problem: ``unavailable``: another call is running.
        """
        if not self._running.acquire(blocking=False):
            raise unavailable(self._detail, self._retry_after_seconds)
        try:
            yield
        finally:
            self._running.release()


class LongReads:
    """Lets one call of the process read at a time, so that a thread is left for other requests.

    Args:
        retry_after_seconds: when a refused caller may repeat the request.
        longest_seconds: the longest time of a call.
    """

    def __init__(
        self, retry_after_seconds: int, *, longest_seconds: float = LONGEST_SECONDS
    ) -> None:
        self._retry_after_seconds = retry_after_seconds
        self._longest_seconds = longest_seconds
        self._calls = OneAtATime(
            retry_after_seconds, "Another request is reading the audit records."
        )

    @contextmanager
    def one(self) -> Iterator[None]:
        """Run the block as the one call.

        Raises:
            Problem: ``unavailable``: another call is running, this one takes too long, or a file
                of records cannot be read.
        """
        try:
            with self._calls.one(), reading_at_most(self._longest_seconds):
                yield
        except ReadingTooLongError as error:
            raise unavailable(str(error), self._retry_after_seconds) from error
        except OSError as error:
            text = f"A file of audit records cannot be read ({error.strerror})."
            raise unavailable(text, self._retry_after_seconds) from error


def unavailable(detail: str, retry_after_seconds: int) -> Problem:
    """Return the problem ``unavailable`` with its reason."""
    return Problem("unavailable", detail, headers={"Retry-After": str(retry_after_seconds)})
