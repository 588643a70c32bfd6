"""Under which identity the Vaults are asked."""

import pytest
from msgspec.structs import replace

from authz_server.operations.keys.context import find_logins
from authz_server.settings import SettingsError, load_settings
from support.settings_file import write_settings


@pytest.fixture
def settings(tmp_path):
    """A ring in a Vault; the file of the rotator's login is missing here."""
    login = {"method": "token", "token_file": str(tmp_path / "token")}
    missing = {"method": "approle", "role_id": "r", "secret_id_file": str(tmp_path / "missing")}
    vault = {
        "addresses": ["https://127.0.0.1:8200"],
        "login": login,
        "rotator_login": missing,
    }
    ring = {"algorithm": "ES256", "backend": "transit://transit/es256", "drive": "rotator"}
    keys = {"rings": {"es256": ring}, "vaults": {"main": vault}}
    return load_settings(write_settings(tmp_path, "sqlite:///keys.db", {"keys": keys}))


def test_an_operator_with_a_token_asks_as_the_operator(settings):
    logins = find_logins(settings, "order", environ={"VAULT_TOKEN": "s.token"})
    assert (logins.identity, logins.problem) == ("operator", "")
    assert logins.accesses["main"].login.token == "s.token"


def test_an_order_without_the_rotators_login_is_carried_out_as_the_server(settings):
    logins = find_logins(settings, "order", environ={})
    assert (logins.identity, logins.accesses["main"].login.method) == ("rotator", "token")
    assert "missing" in logins.problem


def test_an_order_waits_for_no_login_and_a_tick_for_its_own(settings):
    """The log-in of the server reads its file itself, where a step needs the Vault."""
    vault = settings.keys.vaults["main"]
    alone = replace(vault, login=vault.rotator_login, rotator_login=None)
    settings = replace(settings, keys=replace(settings.keys, vaults={"main": alone}))
    for looking in (True, False):
        logins = find_logins(settings, "order", looking=looking, environ={})
        assert logins.accesses["main"].login.secret_id_file.endswith("missing")
    with pytest.raises(SettingsError, match="missing"):
        find_logins(settings, "tick", environ={})


def test_looking_without_the_rotators_login_is_not_a_problem(settings):
    for role in ("order", "tick"):
        logins = find_logins(settings, role, looking=True, environ={})
        assert (logins.accesses["main"].login.method, logins.problem) == ("token", "")


def test_a_tick_without_the_rotators_login_is_refused(settings):
    with pytest.raises(SettingsError, match="missing"):
        find_logins(settings, "tick", environ={})
