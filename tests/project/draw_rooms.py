"""Draws the rooms of the source as ``docs/rooms.svg``: ``python draw_rooms.py > docs/rooms.svg``.

The layers are those of the import contracts in ``pyproject.toml``, the sentences the first lines of
the rooms' docstrings.
"""
# ruff: noqa: E501 - lines of the picture

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINE, PADDING, GAP, HEADING = 22, 7, 5, 40

STYLE = """\
  <style>
    .ground { fill: #ffffff } .band { fill: #eef3fb; stroke: #4a6fa5 } .arrow { stroke: #57606a; fill: none }
    .head { fill: #57606a }
    text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328 }
    .package { font-weight: 600; font-size: 16px }
    .room { font: 600 13px ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace }
    .note { fill: #57606a }
    @media (prefers-color-scheme: dark) {
      .ground { fill: #0d1117 } .band { fill: #161f2e; stroke: #6f9bd8 } .arrow { stroke: #9aa4b0 }
      .head { fill: #9aa4b0 } text { fill: #e6edf3 } .note { fill: #9aa4b0 }
    }
  </style>
"""


@dataclass(frozen=True)
class Band:
    """One layer: its rooms with their sentences, and where it stands."""

    rooms: tuple[tuple[str, str], ...]
    top: int

    @property
    def height(self) -> int:
        """Return its height in the picture's units."""
        return LINE * len(self.rooms) + 2 * PADDING - 2


@dataclass(frozen=True)
class Package:
    """One package: its layers from the highest to the lowest."""

    name: str
    bands: tuple[Band, ...]
    top: int


def layers() -> Iterator[tuple[str, list[list[str]]]]:
    """Yield each package's name with the rooms of its layers, as the contracts have them."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    parts = [*(ROOT / "plugins").glob("[a-z]*.py"), *(ROOT / "plugins").glob("*/__init__.py")]
    yield "plugins", [sorted(p.parent.name if p.stem == "__init__" else p.stem for p in parts)]
    for contract in pyproject["tool"]["importlinter"]["contracts"]:
        if contract["type"] == "layers" and "containers" in contract:
            [package] = contract["containers"]
            if "." not in package and (ROOT / package).is_dir():
                yield package, [re.findall(r"\w+", layer) for layer in contract["layers"]]


def sentence(package: str, room: str) -> str:
    """Return the first sentence of a room's docstring."""
    path = ROOT / package / f"{room}.py"
    path = path if path.exists() else ROOT / package / room / "__init__.py"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = docstring.split("\n\n")[0].replace("\n", " ").replace("``", "")
    return re.sub(r":\w+:`([^`]+)`", r"\1", first)


def draw() -> str:
    """Return the picture."""
    packages, y = [], 0
    for package, found in layers():
        top, bands = y, []
        y += HEADING
        for rooms in found:
            bands.append(Band(tuple((room, sentence(package, room)) for room in rooms), y))
            y += bands[-1].height + GAP
        packages.append(Package(package, tuple(bands), top))
    return _svg(packages, y + 15)


def _svg(packages: list[Package], height: int) -> str:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 920 {height}" role="img" aria-labelledby="title desc">',
        '  <title id="title">The rooms of the source</title>',
        '  <desc id="desc">Layers of three packages. An import points to a lower layer or stays in its room.</desc>',
        f'{STYLE}  <rect class="ground" width="920" height="{height}"/>',
    ]
    for package in packages:
        lines.append(f'  <text class="package" x="40" y="{package.top + 26}">{package.name}</text>')
        for band in package.bands:
            lines.append(
                f'  <rect class="band" x="40" y="{band.top}" width="860" height="{band.height}" rx="4"/>'
            )
            for number, (room, sentence) in enumerate(band.rooms):
                y = band.top + PADDING + 15 + LINE * number
                lines.append(f'  <text class="room" x="54" y="{y}">{room}</text>')
                lines.append(f'  <text x="230" y="{y}">{escape(sentence)}</text>')
    lines += [
        f'  <path class="arrow" d="M20 40V{height - 30}"/>',
        f'  <path class="head" d="M15 {height - 32}h10l-5 9z"/>',
        f'  <text class="note" transform="translate(14 {height // 2}) rotate(-90)" text-anchor="middle">imports</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(draw())
