"""The marks of a calendar as SVG: bars with their patterns, lines, crosses, diamonds and text."""

from html import escape

from authz_server.cli.keys.calendar.legend import CROSS, MILESTONE, NOW
from keys.lifecycle.calendar import SpanKind

BAR_HEIGHT = 24
FONT = "system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
MONOSPACED = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_SAMPLE_WIDTH, _SAMPLE_HEIGHT = 28, 14
#: The fill and the stroke of a bar on light ground.
_BARS = {
    SpanKind.PUBLISHED: ("#dbeafe", "#1d4ed8"),
    SpanKind.SIGNS: ("#166534", "#166534"),
    SpanKind.VERIFIES: ("#fef3c7", "#b45309"),
    SpanKind.TAINTED: ("#fae8ff", "#a21caf"),
}
#: The colours of text and lines on light ground, by class.
_COLOURS = {
    "ink": "#0f172a",
    "faint": "#475569",
    "now-text": "#b91c1c",
    "rule": "#cbd5e1",
    NOW: "#b91c1c",
    CROSS: "#b91c1c",
    MILESTONE: "#0f172a",
    "on-published": "#1e3a8a",
    "on-signs": "#ffffff",
    "on-verifies": "#78350f",
    "on-tainted": "#701a75",
}
DARK_STYLE = """
@media screen and (prefers-color-scheme: dark) {
  .paper { fill: #0f172a } .ink { fill: #f1f5f9 } .faint { fill: #94a3b8 }
  .rule { stroke: #334155 } .now { stroke: #f87171 } .now-text { fill: #fca5a5 }
  .cross { stroke: #f87171 } .milestone { fill: #f1f5f9 }
  .published { fill: #1e3a8a; stroke: #93c5fd } .on-published { fill: #dbeafe }
  .signs { fill: #4ade80; stroke: #4ade80 } .on-signs { fill: #052e16 }
  .verifies { fill: #78350f; stroke: #fbbf24 } .on-verifies { fill: #fef3c7 }
  .tainted { fill: #701a75; stroke: #e879f9 } .on-tainted { fill: #fae8ff }
  .dots { fill: #93c5fd } .slanting { stroke: #fbbf24 } .crossed { stroke: #e879f9 }
}
"""
_PATTERNS = {
    SpanKind.PUBLISHED: (
        '<circle class="dots" cx="4" cy="4" r="1" fill="#1d4ed8" fill-opacity=".35"/>'
    ),
    SpanKind.VERIFIES: (
        '<path class="slanting" d="M0 8L8 0" stroke="#b45309" stroke-opacity=".45"/>'
    ),
    SpanKind.TAINTED: (
        '<path class="crossed" d="M0 8L8 0M0 0L8 8" stroke="#a21caf" stroke-opacity=".45"/>'
    ),
}


def patterns() -> str:
    """Return the definitions of the patterns that bars are filled with."""
    defined = "".join(
        f'<pattern id="pattern-{kind}" width="8" height="8" patternUnits="userSpaceOnUse">'
        f"{content}</pattern>"
        for kind, content in _PATTERNS.items()
    )
    return f"<defs>{defined}</defs>"


def with_prefix(drawn: str, prefix: str) -> str:
    """Return the picture with ``prefix`` before the ids of its patterns and their uses."""
    return drawn.replace('id="pattern-', f'id="{prefix}pattern-').replace(
        "url(#pattern-", f"url(#{prefix}pattern-"
    )


def bar(kind: SpanKind, left: float, top: float, width: float, height: float = BAR_HEIGHT) -> str:
    """Return a bar with the colour and the pattern of its kind."""
    fill, stroke = _BARS[kind]
    place = f'x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height}" rx="3"'
    drawn = f'<rect class="{kind}" {place} fill="{fill}" stroke="{stroke}" stroke-width="1"/>'
    if kind in _PATTERNS:
        drawn += f'<rect {place} fill="url(#pattern-{kind})"/>'
    return drawn


def draw_cross(x: float, y: float, title: str) -> str:
    """Return the cross of a revocation, its centre at ``x``, ``y``."""
    half = 6
    return (
        f'<path class="{CROSS}" stroke="{_COLOURS[CROSS]}" stroke-width="3" fill="none" '
        f'd="M{x - half:.1f} {y - half:.1f}l{2 * half} {2 * half}'
        f'M{x + half:.1f} {y - half:.1f}l{-2 * half} {2 * half}">{_title(title)}</path>'
    )


def draw_diamond(x: float, y: float, title: str) -> str:
    """Return the diamond of a planned change, its centre at ``x``, ``y``."""
    half = 5
    return (
        f'<path class="{MILESTONE}" fill="{_COLOURS[MILESTONE]}" '
        f'd="M{x:.1f} {y - half:.1f}l{half} {half}l{-half} {half}l{-half} {-half}z">'
        f"{_title(title)}</path>"
    )


def draw_rule(x: float, top: float, bottom: float, klass: str, *, width: int = 1) -> str:
    """Return an upright line."""
    return (
        f'<line class="{klass}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" '
        f'stroke="{_COLOURS[klass]}" stroke-width="{width}"/>'
    )


def draw_text(  # noqa: PLR0913 - the attributes of one element
    x: float,
    y: float,
    words: str,
    klass: str,
    *,
    anchor: str = "start",
    size: float = 13,
    weight: int = 400,
    family: str = "",
    mark: str = "",
) -> str:
    """Return a line of text; ``klass`` gives its colour, ``mark`` is a further class."""
    classes = f"{klass} {mark}".strip()
    font = f' font-family="{family}"' if family else ""
    return (
        f'<text class="{classes}" x="{x:.1f}" y="{y:.1f}" fill="{_COLOURS[klass]}" '
        f'text-anchor="{anchor}" font-size="{size}" font-weight="{weight}"{font}>'
        f"{escape(words)}</text>"
    )


def draw_sample(mark: str, left: float, middle: float) -> str:
    """Return the sample of a mark for a legend, 28 wide and 14 high.

    Args:
        mark: its class in pictures.
        left: the left edge.
        middle: the middle of the height.
    """
    centre, top = left + _SAMPLE_WIDTH / 2, middle - _SAMPLE_HEIGHT / 2
    if mark == NOW:
        return draw_rule(centre, top, top + _SAMPLE_HEIGHT, NOW, width=2)
    if mark == CROSS:
        return draw_cross(centre, middle, "")
    if mark == MILESTONE:
        return draw_diamond(centre, middle, "")
    return bar(SpanKind(mark), left, top, _SAMPLE_WIDTH, _SAMPLE_HEIGHT)


def _title(title: str) -> str:
    return f"<title>{escape(title)}</title>" if title else ""
