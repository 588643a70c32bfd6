"""axe-core, which judges pages by the rules of WCAG 2.2, installed as its lock file says."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.not_run import skip_as_not_run

_SOURCE = Path(__file__).parent / "axe_core"
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


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


def violations(page: Any, axe: str) -> list[tuple[str, list[str]]]:
    """Return what axe-core finds on a page: each rule with the elements that break it."""
    # In the page's own world: its policy permits no inline script.
    page.evaluate(f"{axe}; undefined")
    found = page.evaluate(
        "tags => axe.run(document, {runOnly: {type: 'tag', values: tags}})", _TAGS
    )
    return [
        (each["id"], [f"{node['html'][:200]} {node['failureSummary']}" for node in each["nodes"]])
        for each in found["violations"]
    ]
