"""``admin init``: the admin API as a resource server."""

import re
import shlex

from authz_server.operations.admin_api import ADMIN_SCOPES


def test_the_admin_api_is_registered_once(stocked):
    """With its scopes; the printed command makes a first caller."""
    printed = stocked.run("admin", "init").stderr.replace("\\\n", "")
    server = stocked.json("resource-server", "show", "authz-server-admin")
    assert server["identifier"] == "urn:authz-server:admin"
    assert sorted(server["scopes"]) == sorted(name for name, _, _ in ADMIN_SCOPES)
    assert server["secrets"] == []
    again = stocked.json("admin", "init")
    assert (again["created"], again["added_scopes"]) == (False, [])
    command = re.search(r"^  authz-server (client create .*)$", printed, re.MULTILINE)
    assert command is not None, printed
    stocked.must(*shlex.split(command[1]))
    assert "clients:read" in stocked.json("client", "show", "console")["allowed_scopes"]


def test_a_scope_of_another_owner_is_named(stocked):
    """Nothing is changed; the message names the command that corrects it."""
    stocked.must("scope", "add", "clients:read")
    failed = stocked.run("admin", "init")
    assert failed.exit_code == 1
    assert "authz-server scope assign clients:read" in failed.stderr
    assert stocked.run("resource-server", "show", "authz-server-admin").exit_code != 0
