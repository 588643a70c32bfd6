"""Payment windows: the times of the week at which a client may obtain tokens."""

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from authz_server.errors import InvalidChangeError

logger = logging.getLogger(__name__)

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MAXIMUM_WINDOWS = 28
#: How far :meth:`PaymentWindows.closes_at` looks ahead: the longest lifetime of a token.
HORIZON_MINUTES = 60

_FIELD = "payment_windows"
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9][A-Za-z0-9_+-]*){0,3}")
#: Names of files beside the zones: that of the machine's own zone, which differs between nodes, and
#: copies of the zones with and without leap seconds.
_NOT_ZONES = re.compile(r"localtime|posixrules|Factory|posix/.*|right/.*")


class PaymentWindow(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One window of the week.

    Attributes:
        opens: the time of the day at which it opens, such as ``08:00`` (``from``).
        closes: the time at which it closes, up to ``24:00`` (``to``). A time before ``opens`` is
            one of the next day.
        time_zone: a name of the IANA time zone database, such as ``Africa/Nairobi``.
        days: the weekdays on which it opens; none: every day.
    """

    opens: Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]\Z")] = msgspec.field(
        name="from"
    )
    closes: Annotated[str, Meta(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)\Z")] = (
        msgspec.field(name="to")
    )
    time_zone: str
    days: tuple[Weekday, ...] = ()


class _Window:
    """A window in the form in which it is compared with a time."""

    __slots__ = ("closes", "days", "opens", "zone")

    def __init__(self, window: PaymentWindow) -> None:
        self.opens = _minutes(window.opens)
        self.closes = _minutes(window.closes)
        self.zone = _find_zone(window.time_zone)
        self.days = frozenset(WEEKDAYS.index(day) for day in window.days or WEEKDAYS)

    def is_open(self, minute: int) -> bool:
        """Return whether the clock of the zone shows a time within the window."""
        local = datetime.fromtimestamp(minute * 60, self.zone)
        time_of_day, day = local.hour * 60 + local.minute, local.weekday()
        if self.opens < self.closes:
            return day in self.days and self.opens <= time_of_day < self.closes
        if time_of_day >= self.opens:
            return day in self.days
        return time_of_day < self.closes and (day - 1) % 7 in self.days


class PaymentWindows:
    """The windows of a client.

    A window is open while the clock of its zone shows a time from ``from`` to before ``to``: an
    hour that a change to summer time skips is not in it, and an hour that the change back repeats
    is in it twice. The offset of a zone is a whole number of minutes, so that a window opens and
    closes on a whole minute.

    Args:
        windows: the windows. One whose zone is unknown to this machine is never open.
    """

    __slots__ = ("_remembered", "_windows")

    def __init__(self, windows: Sequence[PaymentWindow]) -> None:
        self._windows: list[_Window] = []
        for window in windows:
            try:
                self._windows.append(_Window(window))
            except ValueError as error:
                logger.error("a payment window is never open: %s", error)  # noqa: TRY400 - the message has the cause
        # The last minute asked for, and the first one after it at which no window is open.
        self._remembered = (-1, -1)

    def closes_at(self, now: float) -> int:
        """Return the time at which no window is open any more, in seconds since 1970 UTC.

        Args:
            now: the present time, in seconds since 1970 UTC.

        Returns:
            a time not after ``now`` if none is open; else a time of the next hour, or one beyond it
            if a window stays open for longer.
        """
        minute = int(now // 60)
        asked, closed = self._remembered
        if asked != minute:
            closed = minute
            while closed <= minute + HORIZON_MINUTES and self._is_open(closed):
                closed += 1
            self._remembered = (minute, closed)
        return closed * 60

    def _is_open(self, minute: int) -> bool:
        return any(window.is_open(minute) for window in self._windows)


def check_windows(value: object) -> list[dict[str, Any]]:
    """Return the windows to store.

    Raises:
        InvalidChangeError: the value is not a list of 1 to 28 windows, or a window has a malformed
            time, an unknown zone, or the same time as ``from`` and ``to``.
    """
    listed = [value] if isinstance(value, Mapping) else value
    if not isinstance(listed, list | tuple) or not 1 <= len(listed) <= MAXIMUM_WINDOWS:
        raise InvalidChangeError(f"{_FIELD}: use a list of 1 to {MAXIMUM_WINDOWS} windows")
    return [_checked(window) for window in listed]


def _checked(value: object) -> dict[str, Any]:
    try:
        window = msgspec.convert(value, PaymentWindow)
    except msgspec.ValidationError as error:
        raise InvalidChangeError(
            f"{_FIELD}: {error}; a window is written as "
            '{"days": ["mon"], "from": "08:00", "to": "17:30", "time_zone": "Africa/Nairobi"}'
        ) from None
    if window.opens == window.closes:
        raise InvalidChangeError(f"{_FIELD}: for the whole day write 00:00 to 24:00")
    try:
        _find_zone(window.time_zone)
    except ValueError as error:
        raise InvalidChangeError(f"{_FIELD}: {error}") from None
    if _NOT_ZONES.fullmatch(window.time_zone):
        raise InvalidChangeError(f"{_FIELD}: {window.time_zone!r} does not name a place or UTC")
    plain: dict[str, Any] = msgspec.to_builtins(window)
    return plain


def _find_zone(name: str) -> ZoneInfo:
    """Return the zone; raise ValueError if the time zone database has none of that name."""
    try:
        if _ZONE.fullmatch(name):
            return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        pass
    raise ValueError(f"there is no time zone {name!r} in the IANA database of this machine")


def _minutes(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)
