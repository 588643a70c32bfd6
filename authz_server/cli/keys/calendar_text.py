"""The calendar of a ring for a terminal, 80 columns wide and legible without colour."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from rich.text import Text

from authz_server.cli.plain_text import timestamp
from authz_server.operations.keys.calendar.axis import find_ticks
from authz_server.operations.keys.calendar.legend import CROSS, MARKS, MILESTONE, NOW, state_word
from keys.lifecycle.calendar import Calendar, CalendarRow, SpanKind

WIDTH = 80
_LABEL = 13
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
_NOW = ("│", "|")
_WITHDRAWN = ("✕", "x")
_TICK = ("╷", ",")


def calendar_lines(calendar: Calendar, *, plain: bool = False) -> Iterator[Text]:
    """Yield the lines of the picture: axis, a row for each key, now, legend, planned changes.

    Args:
        calendar: the calendar of the ring to draw.
        plain: use only ASCII.
    """
    column = _scale(calendar)
    yield from _axis(calendar, column, plain=plain)
    for row in calendar.rows:
        yield _line(calendar, row, column, plain=plain)
    yield _now(calendar, column)
    yield _legend(plain=plain)
    for milestone in calendar.milestones:
        yield Text(f"{timestamp(milestone.at)}  {milestone.what}")


def _scale(calendar: Calendar) -> Callable[[datetime], int]:
    whole = (calendar.ends_at - calendar.begins_at).total_seconds()

    def column(at: datetime) -> int:
        share = (at - calendar.begins_at).total_seconds() / whole
        return max(0, min(_BAR - 1, round(share * (_BAR - 1))))

    return column


def _axis(calendar: Calendar, column: Callable[[datetime], int], *, plain: bool) -> Iterator[Text]:
    """Yield the lines of the axis: the days, if there are any, and the ticks."""
    mark = _TICK[1 if plain else 0]
    ticks = find_ticks(calendar.begins_at, calendar.ends_at, column, _BAR)
    days = [(column(tick.at), f" {tick.day}") for tick in ticks if tick.day]
    if days:
        yield _placed(days)
    yield _placed((column(tick.at), mark + tick.label) for tick in ticks)


def _now(calendar: Calendar, column: Callable[[datetime], int]) -> Text:
    label = f"now {timestamp(calendar.now)}"
    start = min(max(column(calendar.now) - len(label) // 2, 0), _BAR - len(label))
    return _placed([(start, label)])


def _placed(labels: Iterable[tuple[int, str]]) -> Text:
    """Return a line with each label at its column."""
    cells = [" "] * _BAR
    for start, label in labels:
        cells[start : start + len(label)] = label
    return Text((" " * _LABEL + "".join(cells)).rstrip(), style="dim")


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
    # The list below has the whole id.
    text = Text(f"v{row.key.version:<3} {row.key.kid[:7]:<7} ")
    for character, style in cells:
        text.append(character, style)
    return text.append("  " + state_word(row))


def _legend(*, plain: bool) -> Text:
    glyph = 1 if plain else 0
    text = Text(" " * _LABEL)
    for mark in MARKS:
        if mark.name == MILESTONE:
            continue  # the lines below the picture, without a mark
        if text.cell_len > _LABEL:
            text.append("  ")
        if mark.name in {NOW, CROSS}:
            sign, style = (_NOW, "bold") if mark.name == NOW else (_WITHDRAWN, "bold red")
            text.append(sign[glyph], style)
        else:
            kind = SpanKind(mark.name)
            text.append(_GLYPHS[kind][glyph] * 2, _STYLES[kind])
        text.append(f" {mark.word}")
    return text
