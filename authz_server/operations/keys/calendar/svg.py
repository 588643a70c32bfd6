"""The calendar of rings as an SVG picture: positions for ``calendar.svg``."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from authz_server.operations.keys.calendar.axis import find_ticks
from authz_server.operations.keys.calendar.legend import MARKS, state_word
from authz_server.operations.keys.calendar.words import Words, words_in
from keys.lifecycle.calendar import Calendar, CalendarRow, Milestone, Span

#: The folder of the templates.
TEMPLATES = Path(__file__).parent
#: The colours of the picture on a dark screen.
DARK_STYLE = TEMPLATES / "dark.css"
WIDTH = 1080
_LEFT, _RIGHT, _EDGE = 312, 24, 20
_PLOT = WIDTH - _LEFT - _RIGHT
_HEAD, _AXIS, _ROW, _LINE = 64, 46, 42, 20
#: The width of a character of 12 and 13 pixels height, in the widest usual font.
_TICK_CHARACTER, _CHARACTER = 7.5, 8.0
#: A key's id, which has 43 characters, has room next to its row; a longer one ends in dots.
_ROOM_FOR_KID = 44

Place = Callable[[datetime], float]
_ENGLISH = "en"


def render_svg(
    calendars: Sequence[Calendar],
    prefix: str = "",
    *,
    legend: bool = True,
    style: bool = True,
    language: str = _ENGLISH,
) -> str:
    """Return one picture of all ``calendars``, one below the other.

    Args:
        calendars: the calendars of the rings to draw.
        prefix: the prefix of ids, which must be unique if a page has several pictures.
        legend: draw the legend below the rings, and each ring's name; a page has its own.
        style: include the dark colours, which the page has otherwise.
        language: the language of the words, a key of ``words.toml``; a legend is in English.
    """
    words = words_in(language)
    rings: list[dict[str, Any]] = []
    top = 0 if legend else -_LINE  # without the line of the name
    for calendar in calendars:
        rings.append(_ring(calendar, top, words))
        top += _height(calendar)
    return (
        _environment()
        .get_template("calendar.svg")
        .render(
            prefix=prefix,
            style=style,
            words=words,
            title=words("title", rings=", ".join(calendar.ring.name for calendar in calendars)),
            description=" ".join(describe(calendar, language) for calendar in calendars),
            rings=rings,
            marks=MARKS if legend else (),
            legend_top=top + _LINE,
            height=top + (_LINE * (len(MARKS) + 2) if legend else 0),
            width=WIDTH,
            left=_LEFT,
            right=_RIGHT,
            edge=_EDGE,
            line=_LINE,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["coordinate"] = coordinate
    return environment


def coordinate(value: float) -> str:
    """Return a position in a picture."""
    return f"{value:.1f}"


def describe(calendar: Calendar, language: str = _ENGLISH) -> str:
    """Return a text alternative of the picture."""
    words = words_in(language)
    keys = [
        words(
            "described-key",
            version=row.key.version,
            kid=row.key.kid,
            state=_state(row, words),
        )
        for row in calendar.rows
    ]
    planned = [f"{_long(each.at)} {words.plan(each.what)}" for each in calendar.milestones]
    return words(
        "description",
        ring=calendar.ring.name,
        now=_long(calendar.now),
        keys="; ".join(keys) or words("no-keys"),
        plans="; ".join(planned) or words("nothing-planned"),
    )


def _height(calendar: Calendar) -> int:
    lines = max(len(calendar.milestones), 1) + 2
    return _HEAD + _AXIS + _ROW * len(calendar.rows) + _LINE * lines


def _state(row: CalendarRow, words: Words) -> str:
    return words(state_word(row).replace(" ", "-"))


def _ring(calendar: Calendar, top: int, words: Words) -> dict[str, Any]:
    """Return a ring's part of the picture; positions are relative to its top."""
    ring, x = calendar.ring, _scale(calendar)
    begin = _HEAD + _AXIS
    facts = words("facts", algorithm=ring.alg, backend=ring.backend_uri, epoch=ring.epoch)
    return {
        "top": top,
        "name": ring.name,
        "facts": f"{facts}, {words('frozen')}" if ring.frozen else facts,
        "begin": begin,
        "bottom": begin + _ROW * len(calendar.rows),
        "ticks": _ticks(calendar, x),
        "rows": [
            _row(calendar, row, begin + _ROW * number, x, words)
            for number, row in enumerate(calendar.rows)
        ],
        "now": _now(calendar, x, words),
        "milestones": [_milestone(calendar, each, x, words) for each in calendar.milestones],
    }


def _ticks(calendar: Calendar, x: Place) -> list[dict[str, Any]]:
    def place(at: datetime) -> float:
        return (x(at) - _LEFT) / _TICK_CHARACTER

    width = (WIDTH - _LEFT) / _TICK_CHARACTER
    ticks = find_ticks(calendar.begins_at, calendar.ends_at, place, width)
    return [{"x": x(tick.at), "day": tick.day, "label": tick.label} for tick in ticks]


def _row(calendar: Calendar, row: CalendarRow, top: int, x: Place, words: Words) -> dict[str, Any]:
    key = row.key
    shown = key.kid if len(key.kid) <= _ROOM_FOR_KID else f"{key.kid[: _ROOM_FOR_KID - 1]}…"
    revoked = row.withdrawn_at and {
        "x": x(row.withdrawn_at),
        "title": words("revocation", version=key.version, at=_long(row.withdrawn_at)),
    }
    return {
        "title": words("row", version=key.version, kid=key.kid),
        "shown_kid": shown,
        "label": f"v{key.version}  {_state(row, words)}",
        "signs": row.signs,
        "top": top,
        "spans": [_span(calendar, row, span, x, words) for span in row.spans],
        "revoked": revoked,
    }


def _span(
    calendar: Calendar, row: CalendarRow, span: Span, x: Place, words: Words
) -> dict[str, Any]:
    word, left = words(span.kind.value), x(span.begins_at)
    width = max(x(span.ends_at or calendar.ends_at) - left, 2.0)
    facts = {"version": row.key.version, "word": word, "begin": _long(span.begins_at)}
    title = (
        words("open-span", **facts)
        if span.ends_at is None
        else words("span", **facts, end=_long(span.ends_at))
    )
    return {
        "kind": span.kind.value,
        "title": title,
        "left": left,
        "width": width,
        "word": word if width > len(word) * _CHARACTER + 8 else "",
    }


def _now(calendar: Calendar, x: Place, words: Words) -> dict[str, Any]:
    label = words("now", at=_long(calendar.now))
    half = len(label) * _CHARACTER / 2
    at = x(calendar.now)
    return {"x": at, "label": label, "middle": min(max(at, half + 8), WIDTH - half - 8)}


def _milestone(calendar: Calendar, milestone: Milestone, x: Place, words: Words) -> dict[str, Any]:
    is_beyond = milestone.at > calendar.ends_at
    beyond = f" {words('beyond')}" if is_beyond else ""
    return {
        "x": x(milestone.at),
        "words": f"{_long(milestone.at)}: {words.plan(milestone.what)}{beyond}",
        "is_beyond": is_beyond,
    }


def _scale(calendar: Calendar) -> Place:
    whole = (calendar.ends_at - calendar.begins_at).total_seconds()

    def place(at: datetime) -> float:
        share = (at - calendar.begins_at).total_seconds() / whole
        return _LEFT + min(max(share, 0.0), 1.0) * _PLOT

    return place


def _long(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
