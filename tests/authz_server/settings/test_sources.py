"""Secrets are named in the settings file, strong, and shown nowhere."""

import getpass
import os
import pwd

import pytest

from authz_server.settings import describe_settings
from authz_server.settings.sources import describe_refusal
from support.minimal_settings import ENVIRON, KEY, MINIMAL, PEPPER, load, refusal


@pytest.mark.parametrize(
    ("written", "what"),
    [
        (KEY.hex().upper(), "hexadecimal"),
        ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", "base64url"),
        ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "base64url, padded"),
        (KEY.hex() + "\r\n", "with a line break"),
    ],
)
def test_the_key_encryption_key_arrives_decoded(tmp_path, written, what):
    assert load(tmp_path, environ={"KEK": written}).keys.key_encryption_key.reveal() == KEY, what


@pytest.mark.parametrize(
    "written", ["", "x" * 32, KEY.hex()[:-1], KEY.hex() + "00", "+" * 43, "é" * 43]
)
def test_a_key_encryption_key_that_is_not_32_bytes_is_refused(tmp_path, written):
    """Case L129."""
    error = refusal(tmp_path, environ={"KEK": written})
    assert error.key == "keys.key_encryption_key"


@pytest.mark.parametrize("written", ["short", "a" * 64, "ab" * 40])
def test_a_weak_pepper_is_refused(tmp_path, written):
    """Case L129."""
    (tmp_path / "pepper").touch(0o600)
    (tmp_path / "pepper").write_text(written)
    error = refusal(tmp_path)
    assert (error.key, "openssl" in error.remedy) == ("clients.secret_pepper", True)
    assert written not in str(error)


def test_a_key_encryption_key_of_zeros_is_refused(tmp_path):
    """Case L129."""
    assert refusal(tmp_path, environ={"KEK": "00" * 32}).key == "keys.key_encryption_key"


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("'written down'", "must name the source"),
        ("{ file = 'missing' }", "No such file"),
        ("{ file = '.' }", "not a file"),
        ("{ env = 'MISSING' }", "MISSING is not set"),
        ("{ env = 'EMPTY' }", "empty"),
        ("{ env = 'KEK', file = 'pepper' }", "must name the source"),
        ("{ vault = 'x' }", "must name the source"),
        ("{ file = 3 }", "must name the source"),
    ],
)
def test_a_secret_that_cannot_be_had_is_refused(tmp_path, reference, problem):
    """Case L129."""
    text = MINIMAL.replace('{ file = "pepper" }', reference)
    error = refusal(tmp_path, text=text, environ={**ENVIRON, "EMPTY": "\n"})
    assert error.key == "clients.secret_pepper"
    assert problem in error.problem
    assert "written down" not in error.problem or "Write { file" in error.remedy


@pytest.mark.parametrize(
    ("key", "source"),
    [
        ("clients.secret_pepper", '{ file = "pepper" }'),
        ("keys.key_encryption_key", '{ env = "KEK" }'),
    ],
)
def test_a_lost_secret_is_restored_and_not_made_again(tmp_path, key, source):
    """Case R242."""
    error = refusal(tmp_path, text=MINIMAL.replace(source, '{ file = "lost" }'))
    assert error.key == key
    assert error.remedy.startswith("Restore it from the backup: a new ")


def test_the_database_password_joins_the_url_and_shows_nowhere(tmp_path):
    """Case L130."""
    more = "[database]\nurl = 'postgresql://authz@db.example/authz'\npassword = { env = 'PW' }"
    settings = load(tmp_path, more=more, environ={**ENVIRON, "PW": "p@ss:w/rd"})

    assert settings.database.url == "postgresql+psycopg://authz:p%40ss%3Aw%2Frd@db.example/authz"
    views = {view.key: view.value for view in describe_settings(settings)}
    assert views["database.url"] == "postgresql+psycopg://authz:***@db.example/authz"
    assert views["database.password"] == "(set)"
    assert "rd@" not in repr(settings)


def test_a_file_that_may_not_be_read_is_named_with_its_owner(tmp_path):
    """Case R242."""
    file = tmp_path / "sealed"
    file.touch(0o600)
    told = describe_refusal(file, PermissionError(13, "Permission denied"))
    assert told == f"Permission denied: it belongs to {getpass.getuser()}, mode 0600"
    below = describe_refusal(file / "pepper", PermissionError(13, "Permission denied"))
    assert below == f"Permission denied: {file} belongs to {getpass.getuser()}, mode 0600"
    gone = describe_refusal(tmp_path / "gone", FileNotFoundError(2, "No such file or directory"))
    assert gone == "No such file or directory"


def test_an_owner_without_a_name_has_a_number(tmp_path, monkeypatch):
    """As in a container; the folder above is not blamed."""
    file = tmp_path / "sealed"
    file.touch(0o600)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    told = describe_refusal(file, PermissionError(13, "Permission denied"))
    assert told == f"Permission denied: it belongs to user {os.getuid()}, mode 0600"


def test_two_passwords_contradict_each_other(tmp_path):
    """Case L129."""
    more = "[database]\nurl = 'postgresql://a:one@db/a'\npassword = { env = 'PW' }"
    error = refusal(tmp_path, more=more, environ={**ENVIRON, "PW": "two"})
    assert error.key == "database.password"


def test_plugins_receive_their_secrets_resolved_and_show_none(tmp_path):
    more = """[plugins]
enabled = ["policy"]
[plugins.settings.policy]
address = "https://policy.example"
[plugins.settings.policy.credentials]
key = { file = "pepper" }
"""
    settings = load(tmp_path, more=more)

    table = settings.plugins.settings["policy"]
    assert table["address"] == "https://policy.example"
    assert table["credentials"]["key"].reveal() == PEPPER.encode()
    views = {view.key: view.value for view in describe_settings(settings)}
    assert views["plugins.settings.policy.credentials.key"] == "(set)"
    missing = more.replace('"pepper"', '"missing"')
    assert refusal(tmp_path, more=missing).key == "plugins.settings.policy.credentials.key"


@pytest.mark.parametrize(
    ("more", "key"),
    [
        (
            "[server]\ntls_certificate = 'pipe'\ntls_private_key = 'x'",
            "server.tls_certificate",
        ),
        (
            "[server]\ntls_certificate = 'x'\ntls_private_key = 'pipe'",
            "server.tls_private_key",
        ),
        ("[outbound]\nca_file = 'pipe'", "outbound.ca_file"),
        (
            "[issuers.one]\nissuer = 'https://a.example'\njwks_file = 'pipe'",
            "issuers.one.jwks_file",
        ),
        ("[database]\nurl = 'postgresql:///a?sslrootcert=pipe'", "database.url: sslrootcert"),
    ],
)
@pytest.mark.timeout(30)
def test_a_pipe_in_place_of_a_file_is_refused(tmp_path, more, key):
    """Opening it would wait for a writer, without a word."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "x").touch(0o600)
    error = refusal(tmp_path, more=more)
    assert (error.key, error.problem) == (key, f"the path {tmp_path}/pipe is not a file")
