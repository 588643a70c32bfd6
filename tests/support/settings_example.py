"""Reads config.example.toml and docs/configuration.md key by key, as a reader would."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

from support.source_tree import ROOT

EXAMPLE = ROOT / "config.example.toml"
DOCUMENT = ROOT / "docs" / "configuration.md"

_TABLE = re.compile(r"(?P<off># )?\[(?P<path>[\w.]+)\]")
_KEY = re.compile(r"(?P<off># )?(?P<key>\w+) = (?P<value>.+)")
_ROW = re.compile(r"\| `(?P<key>[\w.]+)` \| (?P<default>.*?) \| (?P<sentence>.*) \|")


@dataclass(frozen=True)
class Entry:
    """One key: its path, its value in TOML, its sentence, and whether it is commented out."""

    key: str
    text: str
    sentence: str
    commented_out: bool

    @property
    def value(self) -> object:
        """The value itself."""
        return tomllib.loads(f"value = {self.text}")["value"]


def read_example() -> Iterator[Entry]:
    """Yield each key of the example in its order."""
    table, sentence = "", ""
    for line in EXAMPLE.read_text().splitlines():
        if found := _TABLE.fullmatch(line):
            table = found["path"] + "."
        elif found := _KEY.fullmatch(line):
            yield Entry(table + found["key"], found["value"], sentence, bool(found["off"]))
            sentence = ""
        else:
            sentence = line.removeprefix("# ") if line.startswith("# ") else ""


def read_document() -> Iterator[tuple[str, str, str]]:
    """Yield key, default and sentence of each row in the document's tables."""
    for line in DOCUMENT.read_text().splitlines():
        if found := _ROW.fullmatch(line):
            yield found["key"], found["default"], found["sentence"]
