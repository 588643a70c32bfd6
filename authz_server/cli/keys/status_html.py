"""``keys status`` as one HTML file without external resources, to attach to a change ticket."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from html import escape

from authz_server.cli.keys.calendar.legend import MARKS
from authz_server.cli.keys.calendar.marks import draw_sample, patterns, with_prefix
from authz_server.cli.keys.calendar.svg import render_svg
from authz_server.cli.keys.event_names import event_in_words
from authz_server.cli.keys.status_text import facts_of, warnings
from authz_server.cli.output import timestamp
from authz_server.operations.keys.history import Change
from authz_server.operations.keys.status import RingReport, RingStatus

# A table keeps its roles: a browser that lays it out as blocks would take them away.
_STYLE = """
:root { color-scheme: light dark; --ink: #0f172a; --paper: #fff; --faint: #475569;
  --rule: #cbd5e1; --alarm: #b91c1c; --focus: #1d4ed8 }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #f1f5f9; --paper: #0f172a; --faint: #94a3b8; --rule: #334155;
    --alarm: #fca5a5; --focus: #93c5fd } }
* { box-sizing: border-box }
body { color: var(--ink); background: var(--paper); margin: 2rem auto; padding: 0 1rem;
  max-width: 69.5rem; overflow-wrap: break-word;
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif }
h1 { font-size: 1.5rem; line-height: 1.25 }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem }
.picture { overflow-x: auto; border: 1px solid var(--rule); border-radius: 6px }
.picture svg { display: block; width: 100%; min-width: 52rem; height: auto }
.picture:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px }
table { border-collapse: collapse; width: 100%; margin-top: 1.25rem; font-size: .85rem }
caption { color: var(--ink); font-weight: 600; text-align: left; padding-bottom: .25rem }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0;
  border-bottom: 1px solid var(--rule) }
th { color: var(--faint); font-weight: 600 }
time span { white-space: nowrap }
code { font: .78em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
h1, code, .facts td, [data-label="Actor"], [data-label="Reason"] { overflow-wrap: anywhere }
[data-label="Key"], [data-label="Key id"], [data-label="Reason"] { min-width: 12rem }
[data-label="Actor"] { min-width: 10.5rem }
.alarm { color: var(--alarm); font-weight: 600 }
.faint { color: var(--faint) }
.legend { list-style: none; padding: 0 }
.legend li { display: flex; gap: .75rem; align-items: flex-start; margin: .3rem 0 }
.legend svg { flex: none; margin-top: .15rem }
@media screen and (min-width: 68rem) {
  [data-label="Time (UTC)"] { white-space: nowrap }
  [data-label="Key"] { min-width: 20.5rem } [data-label="Key id"] { min-width: 19rem }
}
@media screen and (max-width: 56rem) {
  .wide, .wide caption, .wide tbody, .wide tr, .wide td { display: block }
  .wide thead { position: absolute; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%) }
  .wide tr { border-bottom: 1px solid var(--rule); padding: .4rem 0 }
  .wide td { display: flex; gap: .5rem; min-width: 0; border: 0; padding: .1rem 0 }
  .wide td::before { content: attr(data-label); flex: none; width: 7.5rem;
    color: var(--faint); font-weight: 600 }
}
@media print {
  :root { color-scheme: light }
  body { margin: 0; padding: 0; max-width: none; font-size: 10pt }
  .picture { overflow: visible; border: 0 } .picture svg { min-width: 0 }
  .picture, tr, li { break-inside: avoid } h2, caption { break-after: avoid }
  table { font-size: 8pt } thead { display: table-header-group }
  [data-label="Actor"] { min-width: 7rem }
}
"""
_KEY_COLUMNS = {
    "version": "Version",
    "kid": "Key id",
    "state": "State",
    "published_at": "Published",
    "activate_at": "Signs from",
    "stopped_at": "Stopped",
    "remove_after": "Leaves the JWKS",
    "revoked_at": "Revoked",
}
_CHANGE_COLUMNS = ("Time (UTC)", "Event", "Key", "Actor", "Reason")
_SAMPLE_WIDTH, _SAMPLE_HEIGHT = 30, 18


def render_html(reports: Sequence[RingReport], *, issuer: str, at: str) -> str:
    """Return the page.

    Args:
        reports: the reports of the rings.
        issuer: the issuer.
        at: the time of the reports.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Signing keys of {escape(issuer)}</title>",
        f"<style>{_STYLE}</style></head><body><main>",
        f"<h1>Signing keys of {escape(issuer)}</h1>",
        f'<p class="faint">As found at {escape(at)}. All times are in UTC.</p>',
        *(line for report in reports for line in _section(report)),
        *_legend(),
        "</main></body></html>\n",
    ]
    return "\n".join(parts)


def _section(report: RingReport) -> Iterator[str]:
    status = report.status
    name = escape(status.ring)
    yield f'<section aria-labelledby="ring-{name}"><h2 id="ring-{name}">{name}</h2>'
    for line in warnings(status):
        yield f'<p class="alarm">{escape(line)}</p>'
    # With a place in the order of tabs, so that arrow keys scroll it.
    yield f'<div class="picture" role="region" tabindex="0" aria-label="Calendar of {name}">'
    yield f"{render_svg([report.calendar], prefix=f'{name}-', legend=False)}</div>"
    yield from _key_table(status)
    yield from _history(status)
    yield from _fact_table(status)
    yield "</section>"


def _key_table(status: RingStatus) -> Iterator[str]:
    rows = (
        [_key_cell(field, getattr(key, field)) for field in _KEY_COLUMNS] for key in status.keys
    )
    yield from _table("Keys", [*_KEY_COLUMNS.values()], rows)


def _key_cell(field: str, value: object) -> str:
    if field == "kid":
        return _code(str(value))
    if value is None:
        return "-"
    return _time(value) if isinstance(value, datetime) else escape(str(value))


def _history(status: RingStatus) -> Iterator[str]:
    rows = (
        [
            _time(change.at),
            escape(event_in_words(change.event)),
            _changed(change),
            escape(change.actor),
            escape(change.reason) or "-",
        ]
        for change in status.history
    )
    yield from _table("History, newest first", _CHANGE_COLUMNS, rows)
    if older := status.history_older:
        yield f'<p class="faint">Older changes, in the audit records: {older}.</p>'


def _changed(change: Change) -> str:
    if change.kid is None:
        return "the ring"
    version = "" if change.version is None else f"v{change.version} "
    return f"<span>{version}{_code(change.kid)}</span>"


def _fact_table(status: RingStatus) -> Iterator[str]:
    yield '<table class="facts"><caption>Further facts</caption><tbody>'
    for label, lines in facts_of(status):
        shown = "<br>".join(escape(line) for line in lines)
        yield f'<tr><th scope="row">{escape(label)}</th><td>{shown}</td></tr>'
    yield "</tbody></table>"


def _table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a table, which is shown as a list of cards on a narrow page; cells are HTML."""
    heads = "".join(f'<th scope="col" role="columnheader">{word}</th>' for word in columns)
    yield f'<table class="wide" role="table"><caption>{caption}</caption>'
    yield f'<thead role="rowgroup"><tr role="row">{heads}</tr></thead><tbody role="rowgroup">'
    for row in rows:
        cells = "".join(
            f'<td role="cell" data-label="{column}">{cell}</td>'
            for column, cell in zip(columns, row, strict=True)
        )
        yield f'<tr role="row">{cells}</tr>'
    yield "</tbody></table>"


def _legend() -> Iterator[str]:
    yield '<section aria-labelledby="legend"><h2 id="legend">Legend</h2><ul class="legend">'
    defined = patterns()
    for mark in MARKS:
        sample = draw_sample(mark.name, 1, _SAMPLE_HEIGHT / 2)
        yield (
            f'<li><svg aria-hidden="true" width="{_SAMPLE_WIDTH}" height="{_SAMPLE_HEIGHT}">'
            f"{with_prefix(defined + sample, '_legend-')}</svg>"
            f"<span>{escape(mark.sentence())}</span></li>"
        )
        defined = ""
    yield "</ul></section>"


def _time(at: datetime) -> str:
    shown = timestamp(at) or ""
    date, _, time = shown.removesuffix("Z").partition("T")
    return f'<time datetime="{shown}"><span>{date}</span> <span>{time}</span></time>'


def _code(kid: str) -> str:
    return f"<code>{escape(kid)}</code>"
