"""The example packages of docs/plugins.md: extracted, built, and installed outside the tree."""

import os
import re
import subprocess
import sys
from pathlib import Path

from support.source_tree import ROOT

DOCUMENT = ROOT / "docs" / "plugins.md"
_FILE = re.compile(r"^`([\w-]+/[\w.]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def example_files() -> dict[str, str]:
    """Return the files of the examples, by their path."""
    return dict(_FILE.findall(DOCUMENT.read_text(encoding="utf-8")))


def install_examples(folder: Path) -> Path:
    """Build every example and install it; return the folder that it is imported from."""
    for name, text in example_files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for project in {Path(name).parts[0] for name in example_files()}:
        run("-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=folder / project)
    target, wheels = folder / "installed", sorted(map(str, folder.glob("*.whl")))
    options = ["--no-deps", "--no-index", "--no-compile", "--quiet", "--target", str(target)]
    run("-m", "pip", "--disable-pip-version-check", "install", *options, *wheels)
    return target


def path_with(target: Path) -> str:
    """Return a PYTHONPATH on which the installed examples and this checkout are found."""
    return os.pathsep.join((str(target), str(ROOT)))


def run(*arguments: str, cwd: Path | None = None, path: str = "") -> str:
    """Run Python with these arguments; return what it prints. It has to succeed."""
    environment = os.environ | ({"PYTHONPATH": path} if path else {})
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
