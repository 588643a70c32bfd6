"""The calendar of rings as an SVG picture, for light and dark screens and for paper.

Every bar or its row has its meaning as text, and patterns distinguish the kinds without colour.
Colours are attributes, which every program supports; only the dark ones are in a style sheet.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from html import escape

from authz_server.cli.keys.calendar.axis import find_ticks
from authz_server.cli.keys.calendar.legend import MARKS, NOW
from authz_server.cli.keys.calendar.marks import (
    BAR_HEIGHT,
    DARK_STYLE,
    FONT,
    MONOSPACED,
    bar,
    draw_cross,
    draw_diamond,
    draw_rule,
    draw_sample,
    draw_text,
    patterns,
    with_prefix,
)
from authz_server.cli.keys.calendar.text import state_word
from keys.lifecycle.calendar import Calendar, CalendarRow, Milestone, Span

WIDTH = 1080
_LEFT, _RIGHT, _EDGE = 312, 24, 20
_PLOT = WIDTH - _LEFT - _RIGHT
_HEAD, _AXIS, _ROW, _LINE = 64, 46, 42, 20
#: The width of a character of 12 and 13 pixels height, in the widest usual font.
_TICK_CHARACTER, _CHARACTER = 7.5, 8.0
#: A key's id, which has 43 characters, has room next to its row; a longer one ends in dots.
_ROOM_FOR_KID = 44


def render_svg(calendars: Sequence[Calendar], prefix: str = "", *, legend: bool = True) -> str:
    """Return one picture of all ``calendars``, one below the other.

    Args:
        calendars: the calendars of the rings to draw.
        prefix: the prefix of ids, which must be unique if a page has several pictures.
        legend: draw the legend below the rings.
    """
    heights = [_height(calendar) for calendar in calendars]
    total = sum(heights) + (_LINE * (len(MARKS) + 2) if legend else 0)
    title = "Signing keys of " + ", ".join(calendar.ring.name for calendar in calendars)
    parts = [
        _opening(total, prefix),
        f'<title id="{prefix}title">{escape(title)}</title>',
        f'<desc id="{prefix}description">{escape(" ".join(map(describe, calendars)))}</desc>',
        f"<style>{DARK_STYLE}</style>",
        patterns(),
        f'<rect class="paper" width="{WIDTH}" height="{total}" fill="#ffffff"/>',
    ]
    top = 0
    for calendar, height in zip(calendars, heights, strict=True):
        parts.append(f'<g transform="translate(0 {top})">')
        parts.extend(_ring(calendar))
        parts.append("</g>")
        top += height
    if legend:
        parts.extend(_legend(top))
    return with_prefix("\n".join([*parts, "</svg>\n"]), prefix)


def _opening(height: int, prefix: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" lang="en" '
        f'aria-labelledby="{prefix}title {prefix}description" '
        f'font-family="{FONT}" font-size="13">'
    )


def describe(calendar: Calendar) -> str:
    """Return a text alternative of the picture."""
    keys = [
        f"version {row.key.version} ({row.key.kid}): {state_word(row)}" for row in calendar.rows
    ]
    planned = [f"{_long(each.at)} {each.what}" for each in calendar.milestones]
    now = _long(calendar.now)
    described = "; ".join(keys) or "no keys"
    plans = "; ".join(planned) or "nothing is planned"
    return f"Ring {calendar.ring.name} at {now}: {described}. Next: {plans}."


def _height(calendar: Calendar) -> int:
    return (
        _HEAD
        + _AXIS
        + _ROW * len(calendar.rows)
        + _LINE * max(len(calendar.milestones), 1)
        + 2 * _LINE
    )


def _ring(calendar: Calendar) -> Iterator[str]:
    ring = calendar.ring
    x = _scale(calendar)
    top = _HEAD + _AXIS
    bottom = top + _ROW * len(calendar.rows)
    yield draw_text(_EDGE, 30, ring.name, "ink", size=18, weight=700)
    state = ", frozen" if ring.frozen else ""
    facts = f"{ring.alg}, {ring.backend_uri}, epoch {ring.epoch}{state}"
    yield draw_text(_EDGE, 50, facts, "faint")
    yield from _axis(calendar, top, bottom, x)
    for number, row in enumerate(calendar.rows):
        yield from _row(calendar, row, top + _ROW * number, x)
    yield draw_rule(x(calendar.now), top - 6, bottom + 8, NOW, width=2)
    for milestone in calendar.milestones:
        if milestone.at <= calendar.ends_at:
            yield draw_diamond(x(milestone.at), bottom, _planned(calendar, milestone))
    yield from _below(calendar, bottom + _LINE, x)


def _axis(
    calendar: Calendar, top: float, bottom: float, x: Callable[[datetime], float]
) -> Iterator[str]:
    def place(at: datetime) -> float:
        return (x(at) - _LEFT) / _TICK_CHARACTER

    yield (f'<path class="rule" stroke="#cbd5e1" d="M{_LEFT} {bottom}h{_PLOT}" stroke-width="1"/>')
    width = (WIDTH - _LEFT) / _TICK_CHARACTER
    for tick in find_ticks(calendar.begins_at, calendar.ends_at, place, width):
        yield draw_rule(x(tick.at), top - (40 if tick.day else 24), bottom, "rule")
        for y, label in ((top - 29, tick.day), (top - 13, tick.label)):
            if label:
                yield draw_text(x(tick.at) + 4, y, label, "faint", size=12, mark="tick")


def _row(
    calendar: Calendar, row: CalendarRow, top: float, x: Callable[[datetime], float]
) -> Iterator[str]:
    key = row.key
    label = f"v{key.version}  {state_word(row)}"
    shown = key.kid if len(key.kid) <= _ROOM_FOR_KID else f"{key.kid[: _ROOM_FOR_KID - 1]}…"
    yield f"<g><title>version {key.version}, key id {escape(key.kid)}</title>"
    yield draw_text(_EDGE, top + 17, label, "ink", weight=700 if row.signs else 400)
    yield draw_text(_EDGE, top + 32, shown, "faint", size=10.5, family=MONOSPACED)
    yield "</g>"
    for span in row.spans:
        yield _span(calendar, row, span, top + (_ROW - BAR_HEIGHT) / 2, x)
    if row.withdrawn_at is not None:
        title = f"version {key.version} revoked {_long(row.withdrawn_at)}"
        yield draw_cross(x(row.withdrawn_at), top + _ROW / 2, title)


def _span(
    calendar: Calendar, row: CalendarRow, span: Span, top: float, x: Callable[[datetime], float]
) -> str:
    word = next(mark.word for mark in MARKS if mark.name == span.kind)
    left = x(span.begins_at)
    width = max(x(span.ends_at or calendar.ends_at) - left, 2.0)
    until = "no end planned" if span.ends_at is None else _long(span.ends_at)
    title = f"version {row.key.version} {word}: {_long(span.begins_at)} to {until}"
    parts = [f"<g><title>{escape(title)}</title>", bar(span.kind, left, top, width)]
    if width > len(word) * _CHARACTER + 8:
        on = f"on-{span.kind}"
        parts.append(draw_text(left + width / 2, top + 16.5, word, on, anchor="middle", size=12))
    return "".join([*parts, "</g>"])


def _below(calendar: Calendar, top: float, x: Callable[[datetime], float]) -> Iterator[str]:
    """Yield the lines below the rows: the present time and the planned changes."""
    label = f"now, {_long(calendar.now)}"
    half = len(label) * _CHARACTER / 2
    middle = min(max(x(calendar.now), half + 8), WIDTH - half - 8)
    yield draw_text(middle, top + 3, label, "now-text", anchor="middle", weight=600)
    for number, milestone in enumerate(calendar.milestones, start=1):
        middle = top + _LINE * number
        yield draw_diamond(_EDGE + 6, middle, "")
        yield draw_text(_EDGE + 20, middle + 4.5, _planned(calendar, milestone), "ink")
    if not calendar.milestones:
        yield draw_text(_EDGE, top + _LINE + 4.5, "Nothing is planned.", "ink")


def _planned(calendar: Calendar, milestone: Milestone) -> str:
    beyond = " (beyond the right edge)" if milestone.at > calendar.ends_at else ""
    return f"{_long(milestone.at)}: {milestone.what}{beyond}"


def _scale(calendar: Calendar) -> Callable[[datetime], float]:
    whole = (calendar.ends_at - calendar.begins_at).total_seconds()

    def place(at: datetime) -> float:
        share = (at - calendar.begins_at).total_seconds() / whole
        return _LEFT + min(max(share, 0.0), 1.0) * _PLOT

    return place


def _legend(top: float) -> Iterator[str]:
    yield f'<g class="legend" transform="translate({_EDGE} {top + _LINE})">'
    yield draw_text(0, 0, "Legend. All times are in UTC.", "ink", weight=600)
    for number, mark in enumerate(MARKS, start=1):
        yield draw_sample(mark.name, 0, number * _LINE - 4.5)
        yield draw_text(40, number * _LINE, mark.sentence(), "ink", size=12)
    yield "</g>"


def _long(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
