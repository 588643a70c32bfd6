"""The commands of docs/registration.md, run after those that start the README's server."""

import os
import shutil

import pytest

from support.documents import json_values, run_blocks, shell_blocks, with_values
from support.not_run import skip_as_not_run
from support.ports import release_port, reserve_port


@pytest.fixture
def ports():
    reserved = [reserve_port() for _ in range(2)]
    yield reserved
    for port in reserved:
        release_port(port)


@pytest.mark.timeout(120)
def test_the_commands_of_the_document(ports, tmp_path):
    for program in ("bash", "curl"):
        if shutil.which(program) is None:
            skip_as_not_run("the commands of registration", program)
    first, make, serve = shell_blocks("README.md", dialect="sqlite")[:3]
    blocks = [
        with_values(first, {"PORT": ports[0], "HEALTH_PORT": ports[1]}),
        make,
        serve,
        *shell_blocks("docs/registration.md", dialect="sqlite"),
    ]
    printed = run_blocks(blocks, tmp_path, dict(os.environ), 110)
    told = dict(zip(blocks, printed, strict=True))

    def text(piece):
        (found,) = [text for block, text in told.items() if piece in block]
        return found

    registered, issued = json_values(text("CLIENT_SECRET=$(member client_secret)"))
    assert registered["scope"] == issued["scope"] == "mapper/link"
    managed = text("-X PUT")
    read, updated, *_ = json_values(managed)
    assert (read["client_name"], updated["client_name"]) == ("ERP", "ERP 2")
    assert updated["registration_access_token"] != registered["registration_access_token"]
    assert "mapper/resolve" in updated["scope"]
    assert "Ministry" in managed
    assert managed.rstrip().endswith("204")
