"""Types of options in addition to those of click."""

import re
from collections.abc import Collection
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import click

from authz_server.cli.invocation import Invocation
from keys.errors import TokenRefusedError
from keys.jose.compact import parse_json_object

_DURATION = re.compile(r"\+(\d{1,6})([smhd])")
_TIME_OF_DAY = re.compile(r"\d\d:\d\d(:\d\d)?")
_NOW = "now"
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Instant(click.ParamType[datetime]):
    """A point in time: ISO 8601 with zone, a date (its midnight in UTC), ``now``, or ``+30d``."""

    name = "time"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> datetime:
        """Return a timezone-aware time; the error shows the accepted forms."""
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        try:
            at = _parse(text)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is not a time; write 2030-01-31T12:00:00Z, 2030-01-31, now, or +30d",
                param,
                ctx,
            )
        if ctx is not None and (text == _NOW or text.startswith("+")):
            ctx.ensure_object(Invocation).relative_times.append(at)
        return at


def _parse(text: str) -> datetime:
    now = datetime.now(UTC)
    if text == _NOW:
        return now
    if found := _DURATION.fullmatch(text):
        return now + _span_of(found)
    at = datetime.fromisoformat(text)
    if at.tzinfo is None and len(text) != len("2030-01-31"):
        raise ValueError(text)
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    # Nothing here is older, and a time a little earlier than the first of the calendar is none.
    if at < _EARLIEST:
        raise ValueError(text)
    return at


def _span_of(found: re.Match[str]) -> timedelta:
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


INSTANT = Instant()


class PastInstant(Instant):
    """A point in time, as :class:`Instant`, or ``-2h``, or ``14:05`` of today (UTC)."""

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> datetime:
        """Return a timezone-aware time; the error shows the accepted forms."""
        text = str(value).strip()
        now = datetime.now(UTC)
        if text.startswith("-") and (found := _DURATION.fullmatch(f"+{text[1:]}")):
            # Nothing here is older.
            return now - min(_span_of(found), now - _EARLIEST)
        if _TIME_OF_DAY.fullmatch(text):
            try:
                return datetime.combine(now.date(), time.fromisoformat(text), UTC)
            except ValueError:
                self.fail(f"{value!r} is not a time of the day", param, ctx)
        return super().convert(value, param, ctx)


PAST_INSTANT = PastInstant()


class Span(click.ParamType[timedelta]):
    """A length of time: a number of seconds, minutes, hours or days, such as ``7d``."""

    name = "span"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> timedelta:
        """Return the length; the error shows the accepted forms."""
        if isinstance(value, timedelta):
            return value
        found = _DURATION.fullmatch(f"+{str(value).strip().removeprefix('+')}")
        if found is None:
            self.fail(f"{value!r} is not a span; write 90s, 30m, 12h or 7d", param, ctx)
        return _span_of(found)


SPAN = Span()


class InstantOr(Instant):
    """A point in time, or one word.

    Args:
        word: ``none`` removes a limit; ``now`` is the present time of the database's clock.
    """

    def __init__(self, word: str) -> None:
        self._word = word

    def convert(  # type: ignore[override]
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> datetime | str:
        """Return a time, or the word."""
        return self._word if value == self._word else super().convert(value, param, ctx)


class SecondsOrNone(click.ParamType[int | str]):
    """A whole number of seconds, or ``none``."""

    name = "seconds"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int | str:
        """Return the number, or the word."""
        text = str(value).strip()
        if text == "none":
            return text
        if not text.isascii() or not text.isdigit():
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return int(text[:10])


class Property(click.ParamType[tuple[str, Any]]):
    """A property and its value: ``NAME=VALUE``, ``NAME=@FILE``, or ``NAME=none`` to remove it.

    A value is JSON where it can be read so, and text otherwise.
    """

    name = "name=value"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, Any]:
        """Return the name and the value; None stands for a property to remove."""
        if isinstance(value, tuple):
            return value
        name, separator, text = str(value).partition("=")
        if not separator:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        if text.startswith("@"):
            try:
                text = Path(text[1:]).read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                self.fail(f"{text[1:]}: {error}", param, ctx)
        return name, None if text == "none" else _parse_value(text)


def _parse_value(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return the JSON value in a text; the text without blanks around it if there is none."""
    try:
        value = parse_json_object(f'{{"value":{text}}}'.encode())
    except (TokenRefusedError, UnicodeEncodeError):
        return text.strip()
    return value["value"] if value.keys() == {"value"} else text.strip()


PROPERTY = Property()
SECONDS_OR_NONE = SecondsOrNone()
INSTANT_OR_NONE = InstantOr("none")
INSTANT_OR_NOW = InstantOr("now")


def drop_unset(options: dict[str, Any], *, texts: Collection[str] = ()) -> dict[str, Any]:
    """Return the given options, with ``none`` as None and tuples as lists.

    Args:
        options: the values by their names.
        texts: the names of those of which ``none`` is a text as any other.
    """
    return {
        name: None
        if value == "none" and name not in texts
        else list(value)
        if isinstance(value, tuple)
        else value
        for name, value in options.items()
        if value not in (None, (), {})
    }
