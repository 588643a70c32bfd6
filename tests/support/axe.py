"""axe-core, which judges pages by the rules of WCAG 2.2, installed as its lock file says."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.not_run import skip_as_not_run

_SOURCE = Path(__file__).parent / "axe_core"
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
#: What passes is described too otherwise, with the text of every element.
_RUN = """only => axe.run(document, {runOnly: only, resultTypes: ["violations"]})
    .then(found => found.violations)"""
#: The rules whose outcome depends on colours; the colour scheme changes nothing else.
_OF_COLOURS = ("color-contrast", "link-in-text-block")


@pytest.fixture(scope="session")
def axe(tmp_path_factory) -> str:
    """The source of axe-core."""
    if shutil.which("npm") is None:
        skip_as_not_run("the console by axe-core", "npm")
    folder = tmp_path_factory.mktemp("axe")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_SOURCE / name, folder)
    options = ("--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
    installed = subprocess.run(
        ["npm", "ci", *options], cwd=folder, capture_output=True, text=True, check=False
    )
    assert installed.returncode == 0, installed.stderr
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")


def violations(page: Any, axe: str, *rules: str) -> list[tuple[str, list[str]]]:
    """Return what axe-core finds on a page: each rule with the elements that break it.

    Without names, every rule is tried.
    """
    if not page.evaluate("'axe' in window"):
        # In the page's own world: its policy permits no inline script.
        page.evaluate(f"{axe}; undefined")
    only = {"type": "rule", "values": rules} if rules else {"type": "tag", "values": _TAGS}
    found = page.evaluate(_RUN, only)
    return [
        (each["id"], [f"{node['html'][:200]} {node['failureSummary']}" for node in each["nodes"]])
        for each in found
    ]


def violations_in_both_schemes(page: Any, axe: str) -> list[tuple[str, list[str]]]:
    """As `violations`, with what the dark colours break; the page is light again afterwards."""
    found = violations(page, axe)
    page.emulate_media(color_scheme="dark")
    found += violations(page, axe, *_OF_COLOURS)
    page.emulate_media(color_scheme="light")
    return found
