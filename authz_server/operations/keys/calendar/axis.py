"""The axis of a calendar: ticks at whole steps of time, whose labels do not overlap.

All times are in UTC. Widths are in characters, for a terminal and for a picture.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

#: A Monday, on which weeks begin.
_ANCHOR = datetime(1970, 1, 5, tzinfo=UTC)
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_HALF_MONTH = 0
#: The tick itself, and a space before the next one.
_AROUND_LABEL = 2
_MONTHS_IN_YEAR = 12


@dataclass(frozen=True, slots=True)
class Tick:
    """One tick.

    Attributes:
        at: the time of the tick.
        label: the text right of the tick; empty if there is no room for it or for its day.
        day: the date, or the year, of this label and of those after it; empty if it is that of the
            tick before.
    """

    at: datetime
    label: str
    day: str


@dataclass(frozen=True, slots=True)
class _Step:
    """A distance between ticks: ``seconds``, or else ``months``; 0 is half a month."""

    label: str
    day: str
    seconds: int = 0
    months: int = _HALF_MONTH

    @property
    def shortest(self) -> timedelta:
        """The least time between two ticks."""
        if self.seconds:
            return timedelta(seconds=self.seconds)
        return timedelta(days=28 * self.months or 13)

    def ticks(self, begins_at: datetime, ends_at: datetime) -> Iterator[datetime]:
        """Yield the ticks after ``begins_at`` and before ``ends_at``."""
        moments = self._equal(begins_at) if self.seconds else self._in_months(begins_at)
        for at in moments:
            if at >= ends_at:
                return
            if at > begins_at:
                yield at

    def _equal(self, begins_at: datetime) -> Iterator[datetime]:
        step = timedelta(seconds=self.seconds)
        at = _ANCHOR + step * ((begins_at - _ANCHOR) // step)
        while True:
            yield at
            at += step

    def _in_months(self, begins_at: datetime) -> Iterator[datetime]:
        step = self.months or 1
        first = begins_at.year * _MONTHS_IN_YEAR + begins_at.month - 1
        month = first - first % step
        while True:
            year, rest = divmod(month, _MONTHS_IN_YEAR)
            yield datetime(year, rest + 1, 1, tzinfo=UTC)
            if self.months == _HALF_MONTH:
                yield datetime(year, rest + 1, 15, tzinfo=UTC)
            month += step


_DATE, _YEAR, _NO_DAY = "%Y-%m-%d", "%Y", ""
_STEPS = (
    *(_Step("%H:%M:%S", _DATE, seconds) for seconds in (1, 5, 10, 15, 30)),
    *(_Step("%H:%M", _DATE, minutes * _MINUTE) for minutes in (1, 2, 5, 10, 15, 30)),
    *(_Step("%H:%M", _DATE, hours * _HOUR) for hours in (1, 2, 3, 6, 12)),
    *(_Step("%m-%d", _YEAR, days * _DAY) for days in (1, 2, 7)),
    _Step("%m-%d", _YEAR, months=_HALF_MONTH),
    *(_Step("%Y-%m", _NO_DAY, months=months) for months in (1, 2, 3, 6)),
    *(_Step("%Y", _NO_DAY, months=years * _MONTHS_IN_YEAR) for years in (1, 2, 5, 10, 25, 50, 100)),
)


def find_ticks(
    begins_at: datetime, ends_at: datetime, place: Callable[[datetime], float], width: float
) -> tuple[Tick, ...]:
    """Return the ticks of the shortest step whose labels have room.

    Args:
        begins_at: the left edge.
        ends_at: the right edge, later.
        place: returns where a time is, in characters from the left edge.
        width: the width of the axis in characters.
    """
    begins_at, ends_at = begins_at.astimezone(UTC), ends_at.astimezone(UTC)
    for step in _STEPS:
        if (ends_at - begins_at) / step.shortest > width:
            continue  # too many to look at one by one
        ticks = [
            Tick(at, at.strftime(step.label), at.strftime(step.day))
            for at in step.ticks(begins_at, ends_at)
        ]
        if _have_room(ticks, place):
            return tuple(_without_cut_labels(ticks, place, width))
    return ()


def _have_room(ticks: Sequence[Tick], place: Callable[[datetime], float]) -> bool:
    return all(
        place(later.at) - place(tick.at) >= len(tick.label) + _AROUND_LABEL
        for tick, later in pairwise(ticks)
    )


def _without_cut_labels(
    ticks: Sequence[Tick], place: Callable[[datetime], float], width: float
) -> Iterator[Tick]:
    """Remove labels that the right edge would cut, and labels of days that have no room."""
    firsts = [
        tick
        for number, tick in enumerate(ticks)
        if number == 0 or ticks[number - 1].day != tick.day
    ]
    ends = [*(place(later.at) - 1 for later in firsts[1:]), width]
    named = {
        tick.day: tick.at
        for tick, end in zip(firsts, ends, strict=True)
        if place(tick.at) + 1 + len(tick.day) <= end
    }
    for tick in ticks:
        is_whole = tick.day in named and place(tick.at) + 1 + len(tick.label) <= width
        yield replace(
            tick,
            label=tick.label if is_whole else "",
            day=tick.day if named.get(tick.day) == tick.at else "",
        )
