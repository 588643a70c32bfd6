"""The commands of docs/administration.md, run against a server."""

import os
import shutil

import pytest

from authz_server.operations.admin_api import ADMIN_SCOPES
from support.documents import json_values, run_blocks, shell_blocks, with_values
from support.not_run import skip_as_not_run
from support.ports import release_port, reserve_port

DOCUMENT = "docs/administration.md"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """The commands are the same with every database."""
    return sqlite_url


@pytest.mark.timeout(120)
def test_the_commands_of_the_document(start_live_server, parties, tmp_path):
    """Each succeeds as printed, in the order of the page."""
    for program in ("bash", "curl"):
        if shutil.which(program) is None:
            skip_as_not_run("the commands of the documents", program)
    parties.import_scopes()
    port = reserve_port()
    server = start_live_server(
        admin={"enabled": True, "port": port}, approvals={"acts": ["scope.grant_money"]}
    )
    blocks = [
        with_values(block, {"AUTHZ": server.base_url, "ADMIN": f"http://localhost:{port}"})
        if block.startswith("AUTHZ=")
        else block
        for block in shell_blocks(DOCUMENT, dialect="sqlite")
    ]
    environment = {**os.environ, "AUTHZ_SERVER_CONFIG": str(server.settings_path)}
    printed = run_blocks(blocks, tmp_path, environment, 60)
    release_port(port)
    assert f"{len(ADMIN_SCOPES)} scopes are added" in printed[0]
    _, found = json_values(printed[2])[:2]
    assert [each["id"] for each in found["items"]] == ["office-tool"]
    requests = next(text for text in printed if '"dry_run"' in text)
    values = [each for each in json_values(requests) if "id" in each or "items" in each]
    made, planned, changed, rotated, records = values
    assert made["secret"]["value"]
    assert (planned["dry_run"], changed["dry_run"]) == (True, False)
    assert planned["diff"] == changed["diff"]
    assert len(rotated["old"]) == 1
    assert {each["actor"] for each in records["items"]} == {"client:office-tool via api"}
