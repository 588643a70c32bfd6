"""Client libraries for Node, installed as their lock files say."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.not_run import skip_as_not_run
from support.shared_postgresql import exclusively

_FOREIGN = Path(__file__).parents[1] / "foreign"
OAUTH4WEBAPI = _FOREIGN / "oauth4webapi"
_MCP = _FOREIGN / "mcp_typescript"
EXPRESS = _FOREIGN / "express"
_IDENTITY_PROVIDER = _FOREIGN / "oidc_provider"


@pytest.fixture(scope="session")
def oauth4webapi(run_directory: Path) -> Path:
    """A folder with the scripts for oauth4webapi and openid-client, and what they need."""
    return _install(OAUTH4WEBAPI, run_directory)


@pytest.fixture(scope="session")
def mcp_typescript(run_directory: Path) -> Path:
    """A folder with the scripts for the TypeScript MCP SDK, and what they need."""
    return _install(_MCP, run_directory)


@pytest.fixture(scope="session")
def oidc_provider(run_directory: Path) -> Path:
    """A folder with node-oidc-provider and the script that starts it."""
    return _install(_IDENTITY_PROVIDER, run_directory)


@pytest.fixture(scope="session")
def express(run_directory: Path) -> Path:
    """A folder with Express and its library for access tokens."""
    return _install(EXPRESS, run_directory)


def _install(source: Path, run_directory: Path) -> Path:
    """Install once for all worker processes of the run; what one adds has a name of its own."""
    folder = run_directory / f"node-{source.name}"
    with exclusively(run_directory / f"node-{source.name}.lock"):
        if not folder.exists():
            draft = run_directory / f"node-{source.name}.draft"
            shutil.rmtree(draft, ignore_errors=True)
            install(source, draft).rename(folder)
    return folder


def install(source: Path, folder: Path) -> Path:
    """Copy a folder of tests/foreign and install its packages; return the copy."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            skip_as_not_run(f"{source.name} as a client", program)
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("node_modules"))
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
