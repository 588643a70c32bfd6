import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key

from authz_server.cli.root import main
from authz_server.settings import load_settings
from keys.jose import signatures

ISSUER = "https://auth.example.org"


def _init(directory, *options):
    return CliRunner().invoke(main, ["init", str(directory), *options])


@pytest.fixture(autouse=True, scope="module")
def _few_rsa_keys():
    """Let the installations of this file share a few RSA keys, whose making takes long."""
    made = []

    def generate(exponent, bits):
        if len(made) < 8:
            made.append(generate_rsa_key(exponent, bits))
            return made[-1]
        made.append(made.pop(0))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signatures, "generate_rsa_key", generate)
        yield


@pytest.fixture
def site(tmp_path, sqlite_template):
    """A folder with a migrated database, for tests of settings."""
    (tmp_path / "site").mkdir()
    shutil.copyfile(sqlite_template, tmp_path / "site" / "authz-server.db")
    return tmp_path / "site"


def _steps(result):
    assert result.exit_code == 0, result.output
    return {step["what"]: step["made"] for step in json.loads(result.stdout)["steps"]}


def test_it_makes_everything_that_a_server_needs(tmp_path, empty_database_url):
    """Case G85."""
    directory = tmp_path / "site"
    options = ("--issuer", ISSUER, "--database-url", empty_database_url, "--import", "g2p-connect")
    steps = _steps(_init(directory, *options, "--json"))
    assert all(steps.values())
    assert any("signing keys of the ring es256" in what for what in steps)
    assert any("signing keys of the ring rs256" in what for what in steps)
    assert (directory / "secrets").stat().st_mode & 0o777 == 0o700
    for name in ("pepper", "key-encryption-key"):
        assert (directory / "secrets" / name).stat().st_mode & 0o777 == 0o600
    settings = load_settings(directory / "authz-server.toml")
    assert (settings.issuer, settings.environment) == (ISSUER, "production")
    config = ["--config", str(directory / "authz-server.toml")]
    keys = CliRunner().invoke(main, [*config, "keys", "list", "--json"])
    signing = {key["ring"] for key in json.loads(keys.stdout) if key["signs"]}
    assert signing == {"es256", "rs256"}
    scopes = CliRunner().invoke(main, [*config, "scope", "list", "--json"])
    assert len(json.loads(scopes.stdout)) == 35


def test_the_settings_file_may_be_named_instead_of_its_folder(tmp_path, monkeypatch):
    """Case G85."""
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "site" / "named.toml"
    arguments = ["--config", str(config), "init", "--issuer", ISSUER, "--json"]
    made = json.loads(CliRunner().invoke(main, arguments).stdout)
    assert made["config"] == str(config)
    assert load_settings(config).issuer == ISSUER
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_a_second_run_says_what_exists_and_changes_nothing(tmp_path, empty_database_url):
    options = ("--issuer", ISSUER, "--database-url", empty_database_url)
    _steps(_init(tmp_path / "site", *options, "--json"))
    before = _contents(tmp_path / "site")
    config = ["--config", str(tmp_path / "site" / "authz-server.toml")]
    keys = CliRunner().invoke(main, [*config, "keys", "list", "--json"]).stdout
    assert not any(_steps(_init(tmp_path / "site", *options, "--json")).values())
    again = _init(tmp_path / "site")
    assert again.exit_code == 0
    assert re.search(r"exists +pepper", again.stdout)
    assert _contents(tmp_path / "site") == before
    assert CliRunner().invoke(main, [*config, "keys", "list", "--json"]).stdout == keys


def test_force_writes_the_settings_anew_and_leaves_every_key(tmp_path):
    directory = tmp_path / "site"
    _steps(_init(directory, "--issuer", ISSUER, "--json"))
    before = _contents(directory)
    config = directory / "authz-server.toml"
    config.write_text("not = [toml")
    assert _init(directory).exit_code != 0
    assert _init(directory, "--force").exit_code != 0
    assert config.read_text() == "not = [toml"
    steps = _steps(_init(directory, "--issuer", ISSUER, "--force", "--json"))
    assert [what for what, made in steps.items() if made] == [f"settings file {config}"]
    assert _contents(directory) == before
    assert (directory / "authz-server.toml.bak").read_text() == "not = [toml"


def test_without_an_issuer_it_asks_for_one_and_makes_nothing(tmp_path):
    """Case H98."""
    result = _init(tmp_path / "site")
    assert result.exit_code != 0
    assert "--issuer" in result.stderr
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("issuer", ["http://auth.example.org", "https://a.example/?q", "nonsense"])
def test_an_issuer_that_cannot_be_is_refused(tmp_path, issuer):
    """Case L129."""
    result = _init(tmp_path / "site", "--issuer", issuer)
    assert result.exit_code != 0
    assert "issuer" in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "site").exists()


def test_a_database_url_that_cannot_be_is_refused(tmp_path):
    """Case L129."""
    options = ("--issuer", ISSUER, "--database-url", "mongodb://db.example")
    result = _init(tmp_path / "site", *options)
    assert result.exit_code != 0
    assert "url" in result.stderr
    assert not (tmp_path / "site").exists()


def test_the_next_steps_are_printed_as_commands_that_exist(site):
    result = _init(site, "--development")
    commands = re.findall(r"^  authz-server (.+)$", result.stdout, re.MULTILINE)
    assert [command.split()[0] for command in commands] == [
        "serve",
        "scope",
        "resource-server",
        "client",
    ]
    for command in commands:
        words = [word for word in command.split() if re.fullmatch(r"[a-z0-9-]+", word)][:2]
        names = words if words[0] != "serve" else words[:1]
        assert CliRunner().invoke(main, [*names, "--help"]).exit_code == 0


def test_the_issuers_path_becomes_the_mount_prefix(site):
    issuer = f"{ISSUER}/namespace/v1.0.0"
    _steps(_init(site, "--issuer", issuer, "--port", "9000", "--json"))
    server = load_settings(site / "authz-server.toml").server
    assert server.mount_prefix == "/namespace/v1.0.0"
    assert (server.port, server.health_port) == (9000, 9001)


def test_a_password_in_the_url_goes_to_a_file_of_its_own(tmp_path, postgresql):
    """Case P204."""
    url = postgresql.create_database()
    try:
        directory = tmp_path / "site"
        steps = _steps(_init(directory, "--issuer", ISSUER, "--database-url", url, "--json"))
        assert any("database password" in what for what in steps)
        secret = directory / "secrets" / "database-password"
        assert secret.stat().st_mode & 0o777 == 0o600
        assert secret.read_text() == f"{postgresql.password}\n"
        text = (directory / "authz-server.toml").read_text()
        assert postgresql.password not in text
        assert 'password = { file = "secrets/database-password" }' in text
        settings = load_settings(directory / "authz-server.toml")
        assert settings.database.current_password() == postgresql.password
        # The same again changes nothing; another password is not written over it.
        assert not any(_steps(_init(directory, "--database-url", url, "--json")).values())
        other = url.replace(postgresql.password, "another")
        refused = _init(directory, "--force", "--issuer", ISSUER, "--database-url", other)
        assert refused.exit_code == 1
        assert "holds another password" in refused.stderr
        assert (directory / "authz-server.toml").read_text() == text
        assert "another password" in _init(directory, "--database-url", other).stderr
    finally:
        postgresql.drop_database(url)


@pytest.mark.parametrize("inside", [True, False])
def test_a_password_file_is_referred_to_where_it_is(tmp_path, postgresql, inside):
    """Case P204."""
    directory = tmp_path / "site"
    directory.mkdir()
    file = (directory if inside else tmp_path) / "pw"
    file.touch(0o600)
    file.write_text(postgresql.password)
    url = postgresql.create_database()
    options = (
        "--issuer",
        ISSUER,
        "--database-url",
        url.replace(f":{postgresql.password}", ""),
        "--database-password-file",
        str(file),
    )
    try:
        _steps(_init(directory, *options, "--json"))
        text = (directory / "authz-server.toml").read_text()
        assert f'password = {{ file = "{"pw" if inside else file}" }}' in text
        assert not any(_steps(_init(directory, *options, "--json")).values())
    finally:
        postgresql.drop_database(url)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--database-url", "postgresql://u:secret@h/d"), "leave it out of the URL"),
        (("--database-url", "sqlite:///a.db"), "SQLite has no password"),
        (("--database-url", "postgresql://u@h/d"), "open to others"),
    ],
)
def test_a_password_file_that_cannot_be_is_refused(tmp_path, options, named):
    """Case P204."""
    file = tmp_path / "pw"
    file.write_text("secret")
    if named != "open to others":
        file.chmod(0o600)
    made = _init(
        tmp_path / "site", "--issuer", ISSUER, *options, "--database-password-file", str(file)
    )
    assert made.exit_code != 0
    assert named in made.stderr
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("url", ["authz.db", "sqlite://authz.db", "sqlite:authz.db"])
def test_a_file_in_another_spelling_is_shown_as_it_is_written(tmp_path, url):
    """Case P202."""
    made = _init(tmp_path / "site", "--issuer", ISSUER, "--database-url", url)
    assert made.exit_code == 1
    assert "sqlite:///authz.db" in made.stderr
    assert not (tmp_path / "site").exists()


def test_the_database_file_is_its_owners_alone(tmp_path):
    """Case P204."""
    _steps(_init(tmp_path / "site", "--issuer", ISSUER, "--json"))
    made = list((tmp_path / "site").glob("authz-server.db*"))
    assert made
    assert {path.stat().st_mode & 0o777 for path in made} == {0o600}


DIFFERENT = {
    "--issuer": ("https://other.example.org", ISSUER),
    "--port": ("9000", "8080"),
    "--health-port": ("9009", "8081"),
    "--trusted-proxy": ("10.0.0.1", "127.0.0.1"),
    "--database-url": ("sqlite:///other.db", "authz-server.db"),
}


def test_again_it_names_each_option_that_the_file_contradicts(tmp_path):
    """Case R244."""
    directory = tmp_path / "site"
    first = ("--issuer", ISSUER, "--trusted-proxy", "127.0.0.1")
    _steps(_init(directory, *first, "--json"))
    text = (directory / "authz-server.toml").read_text()
    for option, (asked, has) in DIFFERENT.items():
        again = _init(directory, option, asked)
        assert again.exit_code == 1
        assert re.search(r"exists +settings file", again.stdout)
        for part in (option, asked.removeprefix("sqlite:///"), has, "--force"):
            assert part in again.stderr
        assert (directory / "authz-server.toml").read_text() == text
        assert not (directory / "other.db").exists()
        differs = json.loads(_init(directory, option, asked, "--json").stdout)["differs"]
        assert [each["option"] for each in differs] == [option]


def test_again_after_a_mistyped_database_it_names_what_the_file_has(tmp_path):
    """Case G85."""
    options = ("--development", "--database-url")
    assert "nowhere" in _init(tmp_path, *options, "postgresql://nowhere.invalid/d").stderr
    again = _init(tmp_path, *options, f"sqlite:///{tmp_path}/a.db")
    assert again.exit_code == 1
    assert "was kept as it is" in again.stderr
    assert "--force" in again.stderr
    assert _init(tmp_path, *options, f"sqlite:///{tmp_path}/a.db", "--force").exit_code == 0


def test_a_database_in_memory_is_refused(tmp_path):
    """Case R241: for a trial, too: each process would have one of its own."""
    for url in ("sqlite://", "sqlite:///", "sqlite:///:memory:"):
        refused = _init(tmp_path / "site", "--development", "--database-url", url)
        assert refused.exit_code == 1
        assert "write sqlite:///authz-server.db" in refused.stderr.lower()
        assert not (tmp_path / "site" / "authz-server.toml").exists()


def test_settings_that_cannot_be_used_are_not_kept(tmp_path):
    memory = ("--issuer", ISSUER, "--database-url", "sqlite://")
    assert "in memory is empty" in _init(tmp_path / "site", *memory).stderr
    assert not (tmp_path / "site" / "authz-server.toml").exists()
    assert _init(tmp_path / "site", "--issuer", ISSUER).exit_code == 0
    before = (tmp_path / "site" / "authz-server.toml").read_text()
    assert _init(tmp_path / "site", *memory, "--force").exit_code == 1
    assert (tmp_path / "site" / "authz-server.toml").read_text() == before
    assert not (tmp_path / "site" / "authz-server.toml.bak").exists()


def test_again_without_differences_it_says_what_exists(tmp_path):
    """Case R244."""
    first = ("--issuer", ISSUER, "--port", "9000", "--database-url", "sqlite:///mine.db")
    _steps(_init(tmp_path / "site", *first, "--json"))
    for options in ((), first, ("--port", "9000")):
        again = _init(tmp_path / "site", *options)
        assert again.exit_code == 0, again.output
        assert "exists" in again.stdout
    contradicting = _init(tmp_path / "site", "--development")
    assert "production" in contradicting.stderr


@pytest.mark.parametrize(
    ("options", "issuer", "host", "port"),
    [
        (("--port", "25056"), "http://127.0.0.1:25056", "127.0.0.1", 25056),
        (("--issuer", "http://[::1]:9100"), "http://[::1]:9100", "::1", 9100),
        (("--issuer", "http://localhost:9100"), "http://localhost:9100", "127.0.0.1", 9100),
        ((), "http://127.0.0.1:8080", "127.0.0.1", 8080),
    ],
)
def test_a_development_issuer_is_where_the_server_listens(site, options, issuer, host, port):
    """Case R244."""
    _steps(_init(site, "--development", *options, "--json"))
    settings = load_settings(site / "authz-server.toml")
    assert settings.issuer == issuer
    assert (settings.server.host, settings.server.port) == (host, port)


def _contents(directory: Path):
    return {
        path.name: path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.endswith((".bak", "-wal", "-shm", ".db"))
    }


def test_a_second_folder_for_keys_of_another_is_refused(tmp_path):
    """Case R241: a further node needs the secrets of the first; a new ring would need both."""
    options = ("--issuer", ISSUER, "--database-url", f"sqlite:///{tmp_path}/shared.db")
    _steps(_init(tmp_path / "first", *options, "--json"))
    refused = _init(tmp_path / "second", *options)
    assert refused.exit_code == 1
    assert "keys.key_encryption_key: the private keys in sql://" in refused.stderr
    assert "the settings and secrets of the first" in refused.stderr
    config = tmp_path / "second" / "authz-server.toml"
    rings = "".join(f'[keys.rings.{name}]\nalgorithm = "ES256"\n' for name in ("es256", "further"))
    config.write_text(config.read_text() + rings)
    keys = CliRunner().invoke(main, ["--config", str(config), "keys", "init"])
    assert keys.exit_code == 1
    assert "keys.key_encryption_key" in keys.stderr
    for name in ("pepper", "key-encryption-key"):
        source = tmp_path / "first" / "secrets" / name
        (tmp_path / "second" / "secrets" / name).write_bytes(source.read_bytes())
    assert CliRunner().invoke(main, ["--config", str(config), "keys", "init"]).exit_code == 0
