"""The latest time that tokens issued until now can carry, and so the instants of cut-offs."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from authz_server.database.clock import measure_clock_offset_seconds

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

#: Returns by how many seconds the clocks of nodes are ahead of the database's, within a tolerance.
FindLead = Callable[[Session, float], float]


class IssueTimes:
    """Finds the instants of cut-offs.

    A token carries the time of its node. A node whose clock is off the database's by more than the
    tolerance issues no tokens.

    Args:
        clock: returns the present time.
        tolerance_seconds: the tolerance.
        find_lead_seconds: returns the lead of the node that is furthest ahead.
    """

    def __init__(
        self, clock: Callable[[], datetime], tolerance_seconds: float, find_lead_seconds: FindLead
    ) -> None:
        self._clock = clock
        self._tolerance_seconds = tolerance_seconds
        self._find_lead_seconds = find_lead_seconds

    def find_latest(self, session: Session) -> datetime:
        """Return the latest time that a token which was issued until now can carry."""
        offset, lead = self._measure(session)
        return self._clock() + timedelta(seconds=offset) + lead

    def find_instant(self, session: Session, before: datetime | None = None) -> int:
        """Return the instant of a cut-off, in microseconds since 1970.

        Args:
            session: reads the clock of the database.
            before: the time before which the tokens were issued; None: until now.
        """
        if before is None:
            latest = self.find_latest(session)
        else:
            latest = before - _MICROSECOND + self._measure(session)[1]
        return (latest - _EPOCH) // _MICROSECOND

    def _measure(self, session: Session) -> tuple[float, timedelta]:
        """Return the database's clock minus this machine's in seconds, and the largest lead."""
        offset = measure_clock_offset_seconds(session)
        lead = self._find_lead_seconds(session, self._tolerance_seconds)
        # This machine may issue tokens, too; its clock has been measured just now.
        own = -offset if abs(offset) <= self._tolerance_seconds else 0.0
        return offset, timedelta(seconds=max(lead, own))
