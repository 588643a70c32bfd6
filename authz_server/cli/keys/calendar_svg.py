"""The calendar of rings as a picture: SVG for a change ticket, on light and dark, on paper too.

Every bar says in words what it is, or its row does; patterns tell the kinds apart without colour.
Colours are attributes, which every program reads, and only the dark ones are a style sheet.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from typing import NamedTuple

from authz_server.cli.keys.calendar_text import date_label, short_kid, state_word
from keys.calendar import Calendar, CalendarRow, Span, SpanKind

WIDTH = 960
_LEFT, _RIGHT = 210, 24
_HEAD, _AXIS, _ROW, _LINE = 64, 30, 36, 20
_BAR = 22
_CHARACTER = 6.6
_FONT = "system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
_MOST_TICKS = 7


class _Look(NamedTuple):
    word: str
    fill: str
    stroke: str
    text: str


_LOOKS = {
    SpanKind.PUBLISHED: _Look("published", "#dbeafe", "#1d4ed8", "#1e3a8a"),
    SpanKind.SIGNS: _Look("signs", "#166534", "#166534", "#ffffff"),
    SpanKind.VERIFIES: _Look("verifies", "#fef3c7", "#b45309", "#78350f"),
    SpanKind.TAINTED: _Look("tainted", "#fae8ff", "#a21caf", "#701a75"),
}
_DARK = """
@media screen and (prefers-color-scheme: dark) {
  .paper { fill: #0f172a } .ink { fill: #f1f5f9 } .faint { fill: #94a3b8 }
  .rule { stroke: #334155 } .now { stroke: #f87171 } .now-text { fill: #fca5a5 }
  .cross { stroke: #f87171 }
  .published { fill: #1e3a8a; stroke: #93c5fd } .on-published { fill: #dbeafe }
  .signs { fill: #4ade80; stroke: #4ade80 } .on-signs { fill: #052e16 }
  .verifies { fill: #78350f; stroke: #fbbf24 } .on-verifies { fill: #fef3c7 }
  .tainted { fill: #701a75; stroke: #e879f9 } .on-tainted { fill: #fae8ff }
}
"""
_STEPS = tuple(
    timedelta(seconds=seconds)
    for seconds in (
        *(5, 10, 30, 60, 300, 900, 1_800),
        *(3_600, 10_800, 21_600, 43_200),
        *(86_400, 2 * 86_400, 7 * 86_400, 14 * 86_400, 30 * 86_400, 91 * 86_400, 365 * 86_400),
    )
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def render_svg(calendars: Sequence[Calendar], prefix: str = "") -> str:
    """Return one picture of all ``calendars``, one below the other.

    Args:
        calendars: What to draw.
        prefix: Of the ids in it, which have to be unique where several pictures are in a page.
    """
    heights = [_height(calendar) for calendar in calendars]
    total = sum(heights) + _LINE
    title = "Signing keys of " + ", ".join(calendar.ring.name for calendar in calendars)
    parts = [
        _opening(total, prefix),
        f'<title id="{prefix}title">{escape(title)}</title>',
        f'<desc id="{prefix}description">{escape(" ".join(map(describe, calendars)))}</desc>',
        f"<style>{_DARK}</style>",
        _patterns(prefix),
        f'<rect class="paper" width="{WIDTH}" height="{total}" fill="#ffffff"/>',
    ]
    top = 0
    for calendar, height in zip(calendars, heights, strict=True):
        parts.append(f'<g transform="translate(0 {top})">')
        parts.extend(_ring(calendar))
        parts.append("</g>")
        top += height
    whole = "\n".join([*parts, _legend(total - _LINE / 2), "</svg>\n"])
    return whole.replace("url(#pattern-", f"url(#{prefix}pattern-")


def _opening(height: int, prefix: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" '
        f'aria-labelledby="{prefix}title {prefix}description" '
        f'font-family="{_FONT}" font-size="13">'
    )


def describe(calendar: Calendar) -> str:
    """Return in words what the picture shows, for whoever cannot see it."""
    said = [
        f"version {row.key.version} ({row.key.kid}): {state_word(row)}" for row in calendar.rows
    ]
    planned = [f"{_long(each.at)} {each.what}" for each in calendar.milestones]
    now = _long(calendar.now)
    keys = "; ".join(said) or "no keys"
    plans = "; ".join(planned) or "nothing is planned"
    return f"Ring {calendar.ring.name} at {now}: {keys}. Next: {plans}."


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
    yield _text(20, 30, ring.name, "ink", "#0f172a", size=18, weight=700)
    state = ", frozen" if ring.frozen else ""
    facts = f"{ring.alg}, {ring.backend_uri}, epoch {ring.epoch}{state}"
    yield _text(20, 50, facts, "faint", "#475569")
    for at in _ticks(calendar):
        span = calendar.ends_at - calendar.begins_at
        yield _rule(x(at), top - 6, bottom, "rule", "#cbd5e1")
        yield _text(x(at), top - 12, date_label(at, span), "faint", "#475569", anchor="middle")
    for number, row in enumerate(calendar.rows):
        yield from _row(calendar, row, top + _ROW * number, x)
    yield _rule(x(calendar.now), top - 6, bottom + 4, "now", "#b91c1c", width=2)
    label = f"now, {_long(calendar.now)}"
    half = len(label) * _CHARACTER / 2
    middle = min(max(x(calendar.now), half + 8), WIDTH - half - 8)
    yield _text(middle, bottom + 18, label, "now-text", "#b91c1c", anchor="middle", weight=600)
    lines = [f"{_long(each.at)}   {each.what}" for each in calendar.milestones]
    for number, line in enumerate(lines or ["Nothing is planned."]):
        yield _text(20, bottom + 18 + _LINE * (number + 1), line, "ink", "#0f172a")


def _row(
    calendar: Calendar, row: CalendarRow, top: float, x: Callable[[datetime], float]
) -> Iterator[str]:
    middle = top + _ROW / 2 + 4
    weight = 700 if row.signs else 400
    label = f"v{row.key.version}  {short_kid(row.key.kid)}"
    yield _text(20, middle, label, "ink", "#0f172a", weight=weight)
    word = state_word(row)
    yield _text(_LEFT - 16, middle, word, "ink", "#0f172a", anchor="end", weight=weight)
    for span in row.spans:
        yield from _bar(calendar, row, span, top + (_ROW - _BAR) / 2, x)
    if row.withdrawn_at is not None:
        place, half = x(row.withdrawn_at), 6
        middle = top + _ROW / 2
        yield (
            f'<path class="cross" stroke="#b91c1c" stroke-width="3" d="M{place - half:.1f} '
            f"{middle - half}l{2 * half} {2 * half}M{place + half:.1f} {middle - half}"
            f'l{-2 * half} {2 * half}"><title>revoked {_long(row.withdrawn_at)}</title></path>'
        )


def _bar(
    calendar: Calendar, row: CalendarRow, span: Span, top: float, x: Callable[[datetime], float]
) -> Iterator[str]:
    look = _LOOKS[span.kind]
    left = x(span.begins_at)
    width = max(x(span.ends_at or calendar.ends_at) - left, 2.0)
    until = "no end planned" if span.ends_at is None else _long(span.ends_at)
    told = f"version {row.key.version} {look.word}: {_long(span.begins_at)} to {until}"
    yield "<g>" + f"<title>{escape(told)}</title>"
    place = f'x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{_BAR}" rx="3"'
    yield (
        f'<rect class="{span.kind}" {place} fill="{look.fill}" stroke="{look.stroke}" '
        'stroke-width="1"/>'
    )
    if span.kind is not SpanKind.SIGNS:
        yield f'<rect {place} fill="url(#pattern-{span.kind})"/>'
    if width > len(look.word) * _CHARACTER + 10:
        middle = left + width / 2
        klass = f"on-{span.kind}"
        yield _text(middle, top + 15.5, look.word, klass, look.text, anchor="middle", size=12)
    yield "</g>"


def _scale(calendar: Calendar) -> Callable[[datetime], float]:
    whole = (calendar.ends_at - calendar.begins_at).total_seconds()

    def place(at: datetime) -> float:
        share = (at - calendar.begins_at).total_seconds() / whole
        return _LEFT + min(max(share, 0.0), 1.0) * (WIDTH - _LEFT - _RIGHT)

    return place


def _ticks(calendar: Calendar) -> Iterator[datetime]:
    span = calendar.ends_at - calendar.begins_at
    step = next((step for step in _STEPS if span / step <= _MOST_TICKS), _STEPS[-1])
    passed = (calendar.begins_at - _EPOCH) // step
    at = _EPOCH + step * (passed + 1)
    while at < calendar.ends_at:
        yield at
        at += step


def _patterns(prefix: str) -> str:
    dots = '<circle cx="4" cy="4" r="1" fill="#1d4ed8" fill-opacity=".35"/>'
    lines = '<path d="M0 8L8 0" stroke="#b45309" stroke-opacity=".45"/>'
    crosses = '<path d="M0 8L8 0M0 0L8 8" stroke="#a21caf" stroke-opacity=".45"/>'
    kinds = {
        SpanKind.PUBLISHED: dots,
        SpanKind.VERIFIES: lines,
        SpanKind.TAINTED: crosses,
    }
    made = "".join(
        f'<pattern id="{prefix}pattern-{kind}" width="8" height="8" patternUnits="userSpaceOnUse">'
        f"{content}</pattern>"
        for kind, content in kinds.items()
    )
    return f"<defs>{made}</defs>"


def _legend(middle: float) -> str:
    parts = []
    left = 20.0
    for kind, look in _LOOKS.items():
        place = f'x="{left:.1f}" y="{middle - 12:.1f}" width="26" height="14" rx="2"'
        parts.append(f'<rect class="{kind}" {place} fill="{look.fill}" stroke="{look.stroke}"/>')
        if kind is not SpanKind.SIGNS:
            parts.append(f'<rect {place} fill="url(#pattern-{kind})"/>')
        parts.append(_text(left + 32, middle, look.word, "ink", "#0f172a", size=12))
        left += 48 + len(look.word) * _CHARACTER + 18
    parts.append(_text(left, middle, "Times are in UTC.", "faint", "#475569", size=12))
    return "".join(parts)


def _text(  # noqa: PLR0913 - the attributes of one element
    x: float,
    y: float,
    words: str,
    klass: str,
    fill: str,
    *,
    anchor: str = "start",
    size: int = 13,
    weight: int = 400,
) -> str:
    return (
        f'<text class="{klass}" x="{x:.1f}" y="{y:.1f}" fill="{fill}" text-anchor="{anchor}" '
        f'font-size="{size}" font-weight="{weight}">{escape(words)}</text>'
    )


def _rule(  # noqa: PLR0913 - likewise
    x: float, top: float, bottom: float, klass: str, stroke: str, *, width: int = 1
) -> str:
    return (
        f'<line class="{klass}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" '
        f'stroke="{stroke}" stroke-width="{width}"/>'
    )


def _long(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
