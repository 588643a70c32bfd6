"""The commands of docs/key-management.md, run as printed, against an OpenBao that knows nothing."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from keys.lifecycle.invariants import TRANSITIONS
from support.documents import run_blocks, shell_blocks, with_values
from support.not_run import skip_as_not_run
from support.openbao import RaftServer
from support.openbao_process import find_binary
from support.ports import release_port, reserve_port
from support.source_tree import ROOT

DOCUMENT = "docs/key-management.md"
PROGRAMS = ("bash", "curl", "openssl")


@pytest.fixture
def ports():
    reserved = [reserve_port() for _ in range(2)]
    yield reserved
    for port in reserved:
        release_port(port)


def environment(server: RaftServer, home: Path) -> Mapping[str, str]:
    """The shell of somebody who is logged in to the Vault, as a token in the environment says."""
    kept = {name: value for name, value in os.environ.items() if name != "VAULT_TOKEN"}
    path = f"{Path(find_binary()).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": path, "HOME": str(home), "BAO_TOKEN": server.token}


@pytest.mark.timeout(600)
def test_the_commands_of_the_document(ports, tmp_path):
    """Case G83."""
    for program in PROGRAMS:
        if shutil.which(program) is None:
            skip_as_not_run("the commands of the key management", program)
    folder = tmp_path / "session"
    folder.mkdir()
    with RaftServer(audit=True) as server:
        values = {
            "VAULT_ADDR": server.address,
            "PORT": ports[0],
            "HEALTH_PORT": ports[1],
            "VAULT_LOG": server.audit_path,
        }
        blocks = []
        for block in shell_blocks(DOCUMENT, dialect="sqlite"):
            here = {name: values[name] for name in values if re.search(rf"\b{name}=\S", block)}
            blocks.append(with_values(block, here))
        printed = run_blocks(blocks, folder, environment(server, tmp_path), 580)
        told = dict(zip(blocks, printed, strict=True))
        admin = server.admin()
        assert admin.read_key("oidc-es256")["min_encryption_version"] >= 2

    def output(piece: str) -> str:
        return next(text for block, text in told.items() if piece in block)

    assert "required_parameters" in output("--role server | tee")
    assert "has its first keys" in output("authz-server keys init\n")
    assert "nothing else is permitted" in output("authz-server keys doctor\n")
    assert "version 3 was made" in output("CHG-4711")
    assert "revoked" in output("keys revoke es256")
    assert (folder / "calendar.html").exists()
    assert "eddsa signs instead" in output("keys move")


def test_the_promises_are_numbered_as_refusals_name_them():
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    section = text.partition("\n## What is promised\n")[2].partition("\n## ")[0]
    assert re.findall(r"^(\d+)\. \*\*", section, re.MULTILINE) == [str(n) for n in range(1, 13)]
    named = {
        int(number)
        for path in (ROOT / "keys").rglob("*.py")
        for number in re.findall(r"InvariantError\(\s*(\d+)|invariant (\d+)", path.read_text())
        for number in number
        if number
    }
    assert {1, 2, 4, 7} <= named <= set(range(1, 13))


def test_the_commands_for_an_emergency_are_whole():
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    section = text.partition("\n## Emergency\n")[2].partition("\n\n`")[0]
    named = re.findall(r"`([^`]*\bkeys [^`]*)`", section)
    assert [command.split()[:4] for command in named] == [
        ["authz-server", "keys", act, "es256"] for act in ("taint", "revoke", "revoke")
    ]
    assert all(command.endswith(" --reason INC-17") for command in named)


def test_every_state_is_in_the_table():
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    assert [state for state in TRANSITIONS if f"**{state.value}**" not in text] == []
