"""The calendar of a ring at a terminal: 80 columns, legible without colour."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from rich.text import Text

from authz_server.cli.output import timestamp
from keys.calendar import Calendar, CalendarRow, SpanKind
from keys.signing_key import KeyState

WIDTH = 80
_LABEL = 12
_STATE = 11
_BAR = WIDTH - _LABEL - _STATE - 2
_GLYPHS = {
    SpanKind.PUBLISHED: ("░", "."),
    SpanKind.SIGNS: ("█", "#"),
    SpanKind.VERIFIES: ("▒", "="),
    SpanKind.TAINTED: ("▚", "!"),
}
_STYLES = {
    SpanKind.PUBLISHED: "blue",
    SpanKind.SIGNS: "bold green",
    SpanKind.VERIFIES: "yellow",
    SpanKind.TAINTED: "magenta",
}
_WORDS = {
    SpanKind.PUBLISHED: "published",
    SpanKind.SIGNS: "signs",
    SpanKind.VERIFIES: "verifies",
    SpanKind.TAINTED: "tainted",
}
_NOW = ("│", "|")
_WITHDRAWN = ("✕", "x")


def calendar_lines(calendar: Calendar, *, plain: bool = False) -> Iterator[Text]:
    """Yield the lines of the picture: axis, a row for each key, legend, what is planned.

    Args:
        calendar: What to draw.
        plain: In ASCII alone.
    """
    column = _scale(calendar)
    yield _axis(calendar, column)
    for row in calendar.rows:
        yield _line(calendar, row, column, plain=plain)
    yield _legend(plain=plain)
    for milestone in calendar.milestones:
        yield Text(f"{timestamp(milestone.at)}  {milestone.what}")


def short_kid(kid: str) -> str:
    """Return so much of a key's id that people can tell it from the others of its ring."""
    return kid[:7]


def date_label(at: datetime, span: timedelta) -> str:
    """Return ``at`` as an axis of that length needs it, in UTC."""
    at = at.astimezone(UTC)
    if span > timedelta(days=400):
        return f"{at:%Y-%m-%d}"
    if span > timedelta(days=4):
        return f"{at:%m-%d}"
    if span > timedelta(hours=20):
        return f"{at:%m-%d %H:%M}"
    return f"{at:%H:%M:%S}" if span < timedelta(minutes=30) else f"{at:%H:%M}"


def _scale(calendar: Calendar) -> Callable[[datetime], int]:
    whole = (calendar.ends_at - calendar.begins_at).total_seconds()

    def column(at: datetime) -> int:
        share = (at - calendar.begins_at).total_seconds() / whole
        return max(0, min(_BAR - 1, round(share * (_BAR - 1))))

    return column


def _axis(calendar: Calendar, column: Callable[[datetime], int]) -> Text:
    """Return the line of dates: both edges, and ``now`` where it is."""
    cells = [" "] * _BAR
    span = calendar.ends_at - calendar.begins_at
    first, last = date_label(calendar.begins_at, span), date_label(calendar.ends_at, span)
    for start, label in ((0, first), (_BAR - len(last), last)):
        cells[start : start + len(label)] = label
    start = min(max(column(calendar.now) - 1, len(first) + 1), _BAR - len(last) - 4)
    cells[start : start + 3] = "now"
    return Text(" " * _LABEL + "".join(cells), style="dim")


def _line(
    calendar: Calendar, row: CalendarRow, column: Callable[[datetime], int], *, plain: bool
) -> Text:
    glyph = 1 if plain else 0
    cells = [(" ", "")] * _BAR
    for span in row.spans:
        end = _BAR - 1 if span.ends_at is None else column(span.ends_at)
        first = column(span.begins_at)
        for place in range(first, max(end, first + 1)):
            cells[place] = (_GLYPHS[span.kind][glyph], _STYLES[span.kind])
    now = column(calendar.now)
    cells[now] = (_NOW[glyph], "bold")
    if row.withdrawn_at is not None:
        cells[column(row.withdrawn_at)] = (_WITHDRAWN[glyph], "bold red")
    text = Text(f"v{row.key.version:<3} {short_kid(row.key.kid)} ")
    for character, style in cells:
        text.append(character, style)
    return text.append("  " + state_word(row))


def state_word(row: CalendarRow) -> str:
    """Return what the key is, in one word: that it signs counts more than what is recorded."""
    if row.signs:
        return "signs"
    if row.key.state is KeyState.PUBLISHED:
        return "stands by"
    return row.key.state.value


def _legend(*, plain: bool) -> Text:
    glyph = 1 if plain else 0
    text = Text(" " * _LABEL)
    for kind, word in _WORDS.items():
        text.append(_GLYPHS[kind][glyph] * 2, _STYLES[kind]).append(f" {word}  ")
    return (
        text.append(_NOW[glyph], "bold")
        .append(" now  ")
        .append(_WITHDRAWN[glyph], "red")
        .append(" revoked")
    )
