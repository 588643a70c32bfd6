"""The commands and the file of docs/declarative.md, as printed."""

import json
import re
import shlex

from authz_server.operations.declarative import document
from support.documents import shell_blocks
from support.source_tree import ROOT

DOCUMENT = "docs/declarative.md"
REALM = {
    "clients": [
        {
            "clientId": "agency",
            "serviceAccountsEnabled": True,
            "secret": "a secret of Keycloak",
            "defaultClientScopes": ["mapper.link"],
        }
    ]
}


def test_the_commands_of_the_document(stocked, tmp_path, monkeypatch):
    """Each is run in its order; the printed file replaces the exported one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "realm.json").write_text(json.dumps(REALM))
    (tmp_path / "clients.csv").write_text("client_id,scope\nbureau,mapper/link\n")
    printed = "".join(shell_blocks(DOCUMENT, dialect="sqlite"))
    export, *commands = re.findall(r"^authz-server (.*)$", printed, re.MULTILINE)
    stocked.must(*shlex.split(export))
    text = (ROOT / DOCUMENT).read_text()
    file, operators = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "registrations.toml").write_text(file)
    assert len(commands) == 6
    for command in commands:
        stocked.must(*shlex.split(command))
    assert {each["id"] for each in stocked.json("client", "list")} == {"agency", "ministry"}
    assert (tmp_path / "secrets" / "ministry").stat().st_mode & 0o777 == 0o600
    (secret,) = stocked.json("client", "secret", "list", "agency")
    assert secret["imported"]
    assert "bureau" in (tmp_path / "imported.toml").read_text()
    (tmp_path / "registrations.toml").write_text(file)
    (tmp_path / "operators.toml").write_text(operators)
    stocked.must("apply", "registrations.toml", "operators.toml", "--yes")
    assert operators in stocked.must("export", "--operators")


def test_the_document_has_every_member():
    """The table names each member of each kind of entry."""
    text = (ROOT / DOCUMENT).read_text()
    for struct in (
        document.DeclaredScope,
        document.DeclaredResourceServer,
        document.DeclaredClient,
    ):
        for member in struct.__struct_fields__:
            assert f"`{member}`" in text, member
