"""Time under the control of a test."""

from datetime import UTC, datetime, timedelta

_START = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


class FakeClock:
    """A clock that stands still until it is told to go; call it for the time, in UTC."""

    def __init__(self, now: datetime = _START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass (back, when negative)."""
        self.now += timedelta(seconds=seconds)
