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

    def keep_ahead(self, seconds: float = 10) -> None:
        """Go to so many seconds after the present, unless it is there already.

        For a clock beside the real one, after a set-up that may take long.
        """
        present = datetime.now(UTC).replace(microsecond=0)
        self.now = max(self.now, present + timedelta(seconds=seconds))


def clock_ahead(seconds: float = 10) -> FakeClock:
    """Return a clock a little ahead of the present: what commands make by the real time is old."""
    clock = FakeClock(datetime.min.replace(tzinfo=UTC))
    clock.keep_ahead(seconds)
    return clock
