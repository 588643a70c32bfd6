"""A client library for Node, installed as its lock file says."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.not_run import skip_as_not_run

OAUTH4WEBAPI = Path(__file__).parents[1] / "foreign" / "oauth4webapi"


@pytest.fixture(scope="session")
def oauth4webapi(tmp_path_factory) -> Path:
    """A folder with the scripts and what they need."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            skip_as_not_run("oauth4webapi as a client", program)
    folder = tmp_path_factory.mktemp("node") / "oauth4webapi"
    shutil.copytree(OAUTH4WEBAPI, folder, ignore=shutil.ignore_patterns("node_modules"))
    options = ("--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
    installed = subprocess.run(
        ["npm", "ci", *options], cwd=folder, capture_output=True, text=True, check=False
    )
    assert installed.returncode == 0, installed.stderr
    return folder


def run_script(folder: Path, script: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return what a script prints that reads these values, both as JSON."""
    run = subprocess.run(
        ["node", script],
        cwd=folder,
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NODE_OPTIONS": ""},
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)
