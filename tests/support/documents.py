"""The shell commands in the project's documents, as a reader would type them."""

import json
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from support.source_tree import ROOT
from support.tied_process import start_tied

_BLOCK = re.compile(
    r"(?:^(?P<database>SQLite|PostgreSQL):\n\n)?^```sh\n(?P<block>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_MARK = "=== end of block, status "


def shell_blocks(document: str, section: str | None = None, *, dialect: str) -> list[str]:
    """Return the `sh` blocks of a document, or of one of its sections, in their order.

    A block below the name of a database is left out where `dialect` is the other one.
    """
    text = (ROOT / document).read_text(encoding="utf-8")
    if section is not None:
        _, found, after = text.partition(f"\n{section}\n")
        assert found, f"{document} has no section {section!r}"
        text = re.split(r"^#{1,3} ", after, maxsplit=1, flags=re.MULTILINE)[0]
    return [
        found["block"]
        for found in _BLOCK.finditer(text)
        if (found["database"] or dialect).lower() == dialect
    ]


def anchors_of(document: Path) -> set[str]:
    """Return the anchors of the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def with_values(block: str, values: Mapping[str, object]) -> str:
    """Return the block with other values for the shell variables that it sets."""
    for name, value in values.items():
        block, found = re.subn(rf"\b{name}=\S+", f"{name}={value}", block)
        assert found == 1, f"{name} is set {found} times"
    return block


def run_blocks(
    blocks: Sequence[str], directory: Path, environment: Mapping[str, str], timeout_seconds: float
) -> list[str]:
    """Run the blocks in one shell; return what each printed, stdout and stderr together.

    Every block must succeed. What they leave running is ended.
    """
    script = "".join(f'{block}\necho "\n{_MARK}$?"\n' for block in blocks)
    path = os.pathsep.join((str(Path(sys.executable).parent), environment.get("PATH", "")))
    with (directory / "session.log").open("wb") as output:
        shell = start_tied(
            ["bash", "-u", "-c", script],
            output=output,
            environment={**environment, "PATH": path},
            directory=directory,
        )
        try:
            shell.wait(timeout_seconds)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    told = (directory / "session.log").read_text(errors="replace")
    *printed, _ = re.split(rf"{_MARK}.*\n", told)
    statuses = re.findall(rf"{_MARK}(.*)\n", told)
    assert statuses == ["0"] * len(blocks), f"{blocks[max(len(printed) - 1, 0)]}\n{told}"
    return printed


def json_values(text: str) -> list[Any]:
    """Return every JSON object in the text, one after the other."""
    decoder, values, position = json.JSONDecoder(), [], text.find("{")
    while position >= 0:
        value, end = decoder.raw_decode(text, position)
        values.append(value)
        position = text.find("{", end)
    return values
