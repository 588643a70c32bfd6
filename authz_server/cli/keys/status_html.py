"""``keys status`` as a page of its own, to attach to a change ticket: nothing is fetched."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from authz_server.cli.keys.calendar_svg import render_svg
from authz_server.cli.keys.ring_report import RingReport
from authz_server.cli.keys.status_text import facts_of, warnings

_STYLE = """
:root { color-scheme: light dark; --ink: #0f172a; --paper: #fff; --faint: #475569;
  --rule: #cbd5e1; --alarm: #b91c1c }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #f1f5f9; --paper: #0f172a; --faint: #94a3b8; --rule: #334155;
    --alarm: #fca5a5 } }
body { color: var(--ink); background: var(--paper); margin: 2rem auto; padding: 0 1rem;
  max-width: 62rem; font: 15px/1.5 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
svg { max-width: 100%; height: auto; display: block }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .85rem }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0;
  border-bottom: 1px solid var(--rule) }
th { color: var(--faint); font-weight: 600 }
code { font: .85em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  overflow-wrap: anywhere }
.alarm { color: var(--alarm); font-weight: 600 }
.faint { color: var(--faint) }
@media print { body { margin: 0; max-width: none } section { break-inside: avoid } }
"""
_COLUMNS = {
    "version": "Version",
    "kid": "Key id",
    "state": "State",
    "published_at": "Published",
    "activate_at": "Signs from",
    "stopped_at": "Stopped",
    "remove_after": "Leaves the JWKS",
}


def render_html(reports: Sequence[RingReport], *, issuer: str, at: str) -> str:
    """Return the page.

    Args:
        reports: the rings.
        issuer: whose keys these are.
        at: when this was found out.
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
        "</main></body></html>\n",
    ]
    return "\n".join(parts)


def _section(report: RingReport) -> Iterator[str]:
    fields = report.fields
    name = escape(fields["ring"])
    yield f'<section aria-labelledby="ring-{name}"><h2 id="ring-{name}">{name}</h2>'
    for line in warnings(fields):
        yield f'<p class="alarm">{escape(line)}</p>'
    yield f'<div class="scroll">{render_svg([report.calendar], prefix=f"{name}-")}</div>'
    yield from _key_table(fields)
    yield from _fact_table(fields)
    yield "</section>"


def _key_table(fields: Mapping[str, Any]) -> Iterator[str]:
    heads = "".join(f'<th scope="col">{word}</th>' for word in _COLUMNS.values())
    yield f'<div class="scroll"><table><caption class="faint">Keys</caption><tr>{heads}</tr>'
    for key in fields["keys"]:
        cells = "".join(f"<td>{_cell(field, key[field])}</td>" for field in _COLUMNS)
        yield f"<tr>{cells}</tr>"
    yield "</table></div>"


def _cell(field: str, value: object) -> str:
    if value is None:
        return "-"
    shown = escape(str(value))
    return f"<code>{shown}</code>" if field == "kid" else shown


def _fact_table(fields: Mapping[str, Any]) -> Iterator[str]:
    yield '<table><caption class="faint">What else is known</caption>'
    for label, lines in facts_of(fields):
        shown = "<br>".join(escape(line) for line in lines)
        yield f'<tr><th scope="row">{escape(label)}</th><td>{shown}</td></tr>'
    yield "</table>"
