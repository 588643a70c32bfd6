"""Java programs of tests/foreign, built by Maven once for each run."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from support.not_run import skip_as_not_run
from support.shared_postgresql import exclusively
from support.source_tree import ROOT

#: Reported where a repository cannot be reached, or lacks one of the programs' libraries.
_OUT_OF_REACH = ("Could not transfer artifact", "Could not find artifact")
_COMMAND = ("mvn", "--batch-mode", "--quiet", "--strict-checksums", "package")


def build(name: str, what: str, run_directory: Path, sources: Mapping[str, str]) -> Path:
    """Build a folder of tests/foreign, unless a process of this run has; return its `target`.

    Without Java, Maven or its repository, the test is named as not run.

    Args:
        name: of the folder.
        what: the test shows, for the line of what was not run.
        run_directory: of this run; processes of a run share it.
        sources: further source files, by their paths in the folder.
    """
    for needed in ("java", "mvn"):
        if shutil.which(needed) is None:
            skip_as_not_run(what, f"apt install maven ({needed})")
    folder = run_directory / f"maven-{name}"
    # Maven's cache is not made for two that fill it at once.
    with exclusively(run_directory / "maven.lock"):
        if not (folder / "built").exists():
            shutil.rmtree(folder, ignore_errors=True)
            ignored = shutil.ignore_patterns("target")
            shutil.copytree(ROOT / "tests" / "foreign" / name, folder, ignore=ignored)
            for path, text in sources.items():
                (folder / path).write_text(text, encoding="utf-8")
            built = subprocess.run(
                _COMMAND, cwd=folder, capture_output=True, text=True, check=False
            )
            printed = built.stdout + built.stderr
            if built.returncode and any(each in printed for each in _OUT_OF_REACH):
                skip_as_not_run(what, "a Maven repository in reach")
            assert built.returncode == 0, printed
            (folder / "built").touch()
    return folder / "target"
