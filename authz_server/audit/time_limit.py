"""A limit of the time that one reading of audit records takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from authz_server.errors import OperatorError

_ENDS_AT: ContextVar[float | None] = ContextVar("audit_reading_ends_at", default=None)


class ReadingTooLongError(OperatorError):
    """The records are more than can be read within the limit."""

    def __init__(self) -> None:
        super().__init__(
            "There are more audit records than can be read within the time limit of a request: "
            "use `authz-server audit` on the server."
        )


@contextmanager
def reading_at_most(seconds: float) -> Iterator[None]:
    """Limit the time of the readings in the block.

    Args:
        seconds: the time after which :func:`require_time` refuses.
    """
    token = _ENDS_AT.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _ENDS_AT.reset(token)


def has_time() -> bool:
    """Return whether the time limit has not passed; True without a limit."""
    ends_at = _ENDS_AT.get()
    return ends_at is None or time.monotonic() < ends_at


def require_time() -> None:
    """Require that the time limit has not passed.

    Raises:
        ReadingTooLongError: it has.
    """
    if not has_time():
        raise ReadingTooLongError
