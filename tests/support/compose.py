"""compose.yaml taken apart, and the commands at its top carried out without a container engine."""

import os
import shutil
import subprocess
from pathlib import Path

import yaml

from support.source_tree import ROOT

_TEXT = (ROOT / "compose.yaml").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load(_TEXT)
SERVICES = COMPOSE["services"]
#: The issuer in the comment, and one of the tests.
_DOCUMENTED_ISSUER, ISSUER = "https://auth.example.org", "https://login.example.org"
# Only root may give files away: who gets which file is written down instead.
_CHOWN = '#!/bin/sh\nowner=$1\nshift\nfor file; do echo "$owner $file" >>chown.log; done\n'


def setup_commands() -> str:
    """Return the commands in the comment at the top, those for the container engine left out."""
    comment, _, _ = _TEXT.partition("\nname:")
    lines = [line.removeprefix("#   ") for line in comment.splitlines() if line.startswith("#   ")]
    return "\n".join(line for line in lines if not line.startswith(("make image", "docker ")))


def prepare(folder: Path) -> Path:
    """Carry out these commands in a folder; `chown.log` holds who got which file."""
    shutil.copytree(ROOT / "deploy", folder / "deploy")
    commands = folder / "bin"
    commands.mkdir()
    (commands / "chown").write_text(_CHOWN)
    (commands / "chown").chmod(0o755)
    script = setup_commands()
    assert _DOCUMENTED_ISSUER in script
    subprocess.run(
        ["bash", "-euc", script.replace(_DOCUMENTED_ISSUER, ISSUER)],
        cwd=folder,
        env=os.environ | {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"},
        check=True,
    )
    return folder


def file_of(config: str) -> Path:
    """Return the file of the checkout that a config names."""
    return ROOT / COMPOSE["configs"][config]["file"]


def check_of(service: str) -> list[str]:
    """Return the command of a service's health check."""
    kind, *command = SERVICES[service]["healthcheck"]["test"]
    assert kind == "CMD"
    return command
