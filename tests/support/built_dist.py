"""The files of `make dist`, built once for all tests of a run that need them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.shared_postgresql import exclusively
from support.source_tree import ROOT


def build_dist(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build into a folder that does not exist; the build itself compares two builds."""
    return subprocess.run(
        [ROOT / "tests" / "project" / "build_dist", sys.executable, folder],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def dist(run_directory: Path) -> Path:
    """The folder of the build, shared by the worker processes: read it, never change it."""
    folder = run_directory / "dist"
    with exclusively(run_directory / "dist.lock"):
        if not folder.exists():
            draft = run_directory / "dist.draft"
            shutil.rmtree(draft, ignore_errors=True)
            run = build_dist(draft)
            assert run.returncode == 0, run.stderr
            draft.rename(folder)
    return folder
