"""[keys.vaults]: which Vaults the settings accept, and how each is then reached as whom."""

import pytest

from authz_server.key_rings.vaults import vault_access, vault_accesses
from authz_server.settings import SettingsError, describe_settings
from keys.backends.vault.settings import VaultAccess, VaultLogin
from support.minimal_settings import ENVIRON, load, refusal

VAULT = """
[keys.rings.es256]
backend = "transit://transit/oidc-es256"
[keys.vaults.main]
addresses = ["https://vault.example:8200", "http://127.0.0.1:8200"]
"""
LOGIN = """[keys.vaults.main.login]
method = "approle"
role_id = "role"
secret_id_file = "secret-id"
"""
ROTATOR = """[keys.vaults.main.rotator_login]
method = "token"
token_file = "rotator-token"
"""
LOGINS = {
    "approle": "role_id = 'r'\nsecret_id_file = 'f'",
    "kubernetes": "role = 'r'",
    "jwt": "jwt_file = 'f'",
    "cert": "certificate_file = 'f'\nprivate_key_file = 'f'",
    "token": "token_file = 'f'",
}


def private_file(path, text="secret"):
    path.touch(0o600)
    path.write_text(text)
    return str(path)


def test_a_vault_is_reached_as_the_server(tmp_path):
    more = f"{VAULT}namespace = 'team'\nca_file = 'ca.pem'\nconnect_timeout_milliseconds = 50\n"
    settings = load(tmp_path, more=more + LOGIN)
    ca, secret = private_file(tmp_path / "ca.pem"), private_file(tmp_path / "secret-id")

    assert vault_accesses(settings, "server", {}) == {
        "main": VaultAccess(
            addresses=("https://vault.example:8200", "http://127.0.0.1:8200"),
            login=VaultLogin(method="approle", role_id="role", secret_id_file=secret),
            namespace="team",
            ca_file=ca,
            connect_timeout_seconds=0.05,
            read_timeout_seconds=1.0,
            total_timeout_seconds=1.5,
        )
    }


def test_the_rotator_has_its_own_login_or_else_the_servers(tmp_path):
    settings = load(tmp_path, more=VAULT + LOGIN + ROTATOR)
    secret = private_file(tmp_path / "secret-id")
    token = private_file(tmp_path / "rotator-token")

    assert vault_access(settings, "main", "rotator", {}).login.token_file == token
    alone = load(tmp_path, more=VAULT + LOGIN)
    assert vault_access(alone, "main", "rotator", {}).login.secret_id_file == secret


def test_the_server_never_looks_at_the_files_of_the_rotator(tmp_path):
    settings = load(tmp_path, more=VAULT + LOGIN + ROTATOR)
    private_file(tmp_path / "secret-id")
    (tmp_path / "rotator-token").touch(0o644)

    assert vault_access(settings, "main", "server", {}).login.method == "approle"
    with pytest.raises(SettingsError, match="open to others") as caught:
        vault_access(settings, "main", "rotator", {})
    assert caught.value.key == "keys.vaults.main.rotator_login.token_file"


def test_an_operator_brings_a_token_that_shows_nowhere(tmp_path):
    settings = load(tmp_path, more=VAULT + LOGIN)

    access = vault_access(settings, "main", "operator", {"VAULT_TOKEN": " hvs.mine\n"})
    assert access.login == VaultLogin(method="token", token="hvs.mine")
    assert "hvs.mine" not in repr(access)
    with pytest.raises(SettingsError, match="VAULT_TOKEN is not set"):
        vault_access(settings, "main", "operator", {})


def test_a_vault_that_is_not_there_has_no_access(tmp_path):
    with pytest.raises(SettingsError) as caught:
        vault_access(load(tmp_path), "other", "server")
    assert caught.value.key == "keys.vaults.other"


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_production_refuses_a_secret_of_a_login_that_is_open_to_others(tmp_path, mode):
    """Case L130."""
    private_file(tmp_path / "secret-id")
    (tmp_path / "secret-id").chmod(mode)

    with pytest.raises(SettingsError, match="open to others") as caught:
        vault_access(load(tmp_path, more=VAULT + LOGIN), "main", "server", {})
    assert caught.value.key == "keys.vaults.main.login.secret_id_file"
    assert caught.value.remedy == f"Run: chmod 600 {tmp_path}/secret-id"
    development = load(tmp_path, more=VAULT + LOGIN, top="environment = 'development'")
    assert vault_access(development, "main", "server", {})


def test_a_file_of_a_login_must_be_there_unless_an_agent_writes_it(tmp_path):
    """Case L129."""
    with pytest.raises(SettingsError, match="secret-id does not exist") as caught:
        vault_access(load(tmp_path, more=VAULT + LOGIN), "main", "server", {})
    assert caught.value.key == "keys.vaults.main.login.secret_id_file"
    agent = VAULT + "[keys.vaults.main.login]\nmethod = 'token'\ntoken_file = 'later'"
    login = vault_access(load(tmp_path, more=agent), "main", "server", {}).login
    assert login.token_file == str(tmp_path / "later")
    behind_a_file = agent.replace("'later'", "'pepper/later'")
    assert vault_access(load(tmp_path, more=behind_a_file), "main", "server", {})


def test_the_token_of_a_service_account_has_its_place_and_the_platforms_mode(tmp_path):
    more = VAULT + "[keys.vaults.main.login]\nmethod = 'kubernetes'\nrole = 'r'\n"
    login = vault_access(load(tmp_path, more=more), "main", "server", {}).login
    assert login.jwt_file == "/var/run/secrets/kubernetes.io/serviceaccount/token"
    (tmp_path / "token").touch(0o644)
    projected = load(tmp_path, more=f"{more}jwt_file = 'token'")
    assert vault_access(projected, "main", "server", {}).login.jwt_file == f"{tmp_path}/token"


@pytest.mark.parametrize("method", LOGINS)
def test_each_login_method_has_its_own_keys(tmp_path, method):
    """Case L129."""
    table = f"[keys.vaults.main.login]\nmethod = '{method}'\n"
    needed = LOGINS[method]
    assert load(tmp_path, more=VAULT + table + needed)
    first, *rest = needed.splitlines()
    missing = "\n".join(rest)
    error = refusal(tmp_path, more=VAULT + table + missing)
    assert error.key == f"keys.vaults.main.login.{first.partition(' ')[0]}"
    foreign = "token_file = 'f'" if method != "token" else "role_id = 'r'"
    error = refusal(tmp_path, more=f"{VAULT}{table}{needed}\n{foreign}")
    assert error.key == f"keys.vaults.main.login.{foreign.partition(' ')[0]}"
    assert error.problem == f"does not apply to the login method {method}"


WRONG = {
    "keys.vaults.main.addresses": ('"https://vault.example:8200", "http://127.0.0.1:8200"', ""),
    "keys.vaults.main.addresses[0]": ("https://vault.example:8200", "vault.example:8200"),
    "keys.vaults.main.addresses[1]": ("http://127.0.0.1:8200", "http://10.0.0.1:8200"),
    "keys.vaults.main.login": (LOGIN, ""),
    "keys.vaults.main.login.method": ('method = "approle"', 'method = "ldap"'),
    "keys.vaults.Main": ("keys.vaults.main", "keys.vaults.Main"),
    "keys.rings.es256.backend": ("keys.vaults.main", "keys.vaults.other"),
    "keys.vaults.main.namspace": ("[keys.vaults.main.login]", "namspace = ''\n\\g<0>"),
}


@pytest.mark.parametrize(("key", "change"), WRONG.items(), ids=WRONG)
def test_what_cannot_be_a_vault_names_its_key(tmp_path, key, change):
    """Case L129, Case L130."""
    text = (VAULT + LOGIN).replace(change[0], change[1].replace("\\g<0>", change[0]))
    assert refusal(tmp_path, more=text).key == key


@pytest.mark.parametrize(
    "address",
    ["https://v/", "https://v/x", "https://u@v", "https://v?a", "https://v:x", "unix:///s", ""],
)
def test_an_address_is_scheme_host_and_port_alone(tmp_path, address):
    """Case L129."""
    text = (VAULT + LOGIN).replace("https://vault.example:8200", address)
    assert refusal(tmp_path, more=text).key == "keys.vaults.main.addresses[0]"


@pytest.mark.parametrize(
    ("name", "milliseconds"),
    [
        ("connect_timeout_milliseconds", 0),
        ("connect_timeout_milliseconds", 1_501),
        ("read_timeout_milliseconds", 1_501),
        ("total_timeout_milliseconds", 5_001),
    ],
)
def test_no_call_to_a_vault_takes_long(tmp_path, name, milliseconds):
    """Case G80."""
    error = refusal(tmp_path, more=f"{VAULT}{name} = {milliseconds}\n{LOGIN}")
    assert error.key == f"keys.vaults.main.{name}"


def test_plain_http_to_another_machine_is_for_development(tmp_path):
    """Case L130."""
    text = (VAULT + LOGIN).replace("https://vault.example", "http://vault.example")
    assert refusal(tmp_path, more=text).key == "keys.vaults.main.addresses[0]"
    assert load(tmp_path, more=text, top="environment = 'development'")


def test_a_word_of_a_fixed_list_is_told_for_a_login_too(tmp_path):
    text = VAULT + LOGIN.replace("approle", "ldap")
    assert refusal(tmp_path, more=text).remedy == (
        "Use one of approle, kubernetes, jwt, cert, token."
    )


def test_the_view_shows_a_vault_and_which_file_names_its_secret(tmp_path):
    settings = load(tmp_path, more=VAULT + LOGIN + ROTATOR, environ={**ENVIRON, "VAULT_TOKEN": "t"})
    views = {view.key: view.value for view in describe_settings(settings)}
    assert views["keys.vaults.main.addresses"][0] == "https://vault.example:8200"
    assert views["keys.vaults.main.login.secret_id_file"] == f"{tmp_path}/secret-id"
    assert views["keys.vaults.main.rotator_login.method"] == "token"
