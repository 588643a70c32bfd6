"""Roles of operators that the settings add."""

import pytest

from authz_server.operations.permissions import ROLES, roles_of
from support.minimal_settings import load, refusal

READS = 'permissions = ["clients:read"]'


@pytest.mark.parametrize(
    ("table", "line", "key"),
    [
        ("helpdesk", 'permissions = ["clients:delete"]', "helpdesk.permissions"),
        ("helpdesk", 'permissions = "clients:read"', "helpdesk.permissions"),
        ("helpdesk", "", "helpdesk.permissions"),
        ("helpdesk", f"{READS}\nlimited = true", "helpdesk.limited"),
        ("auditor", READS, "auditor"),
        ("security-officer", READS, "security-officer"),
        ("Help", READS, "Help"),
        ('"a b"', READS, "a b"),
        (f'"{"x" * 41}"', READS, "x" * 41),
    ],
)
def test_a_role_that_cannot_be_used_is_refused(tmp_path, table, line, key):
    """With its path; a shipped role keeps its permissions."""
    found = refusal(tmp_path, more=f"[admin.roles.{table}]\n{line}").key
    assert found.split("[")[0] == f"admin.roles.{key}"


def test_a_role_of_the_settings_stands_beside_the_shipped_ones(tmp_path):
    """It may be limited."""
    settings = load(tmp_path, more=f"[admin.roles.helpdesk]\n{READS}")
    roles = roles_of(settings)
    assert roles.keys() - ROLES.keys() == {"helpdesk"}
    assert (roles["helpdesk"].permissions, roles["helpdesk"].limited) == ({"clients:read"}, "may")


def test_the_default_url_that_is_written_out_is_refused_with_the_way_to_have_it(tmp_path):
    """An http URL is only the default, which has the port of the listener."""
    refused = refusal(tmp_path, more='[admin]\nport = 9000\npublic_url = "http://localhost:9000"')
    assert refused.key == "admin.public_url"
    assert str(refused).endswith("leave it empty for http://localhost:9000")
