"""The database URL: as libpq reads it, and refused by name where a part would have no effect."""

import pytest

from authz_server.settings import DatabaseSettings, RuleError, Secret, describe_settings
from authz_server.settings.database import parse_database_url
from support.minimal_settings import load, refusal


@pytest.mark.parametrize(
    ("url", "parameters"),
    [
        ("postgresql://h/db", {"host": "h", "dbname": "db"}),
        ("postgres://u:p%40@h:5433/db", {"user": "u", "password": "p@", "port": "5433"}),
        ("postgresql+psycopg://h1:5432,h2:5433/db", {"host": "h1,h2", "port": "5432,5433"}),
        ("postgresql://h1,h2/db", {"host": "h1,h2"}),
        ("postgresql://[::1]:1,[::2]:2/db", {"host": "::1,::2", "port": "1,2"}),
        ("postgresql://u@/db?host=/run/postgresql", {"host": "/run/postgresql", "user": "u"}),
        ("postgresql://h/db?connect_timeout=9", {"connect_timeout": "9"}),
        ("postgresql://h/db?options=-csearch_path%3Da+b", {"options": "-csearch_path=a+b"}),
    ],
)
def test_a_url_is_read_as_libpq_reads_it(url, parameters):
    """Case P201."""
    parts = parse_database_url(url)
    assert parts.parameters.items() >= parameters.items()
    assert parse_database_url(parts.render()) == parts


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://h/db?options=-cstatement_timeout%3D9s", "statement_timeout"),
        ("postgresql://h/db?options=--lock-timeout%3D9s", "lock_timeout"),
        ("postgresql://h/db?options=-c%20DateStyle%3DGerman", "datestyle"),
        ("postgresql://h/db?client_encoding=latin1", "client_encoding"),
        ("postgresql://h/db?target_session_attrs=standby", "target_session_attrs=standby"),
        ("postgresql://h/db?sslmode=require&sslmode=disable", "sslmode is given twice"),
        ("postgresql://h/db?password=secret", "query"),
        ("postgresql://h/db?pool_size=5", "no parameter 'pool_size'"),
        ("postgresql://[::1/db", "not a database URL"),
        ("postgresql://h/db\n", "line break"),
        (" sqlite:///authz.db", "space"),
        ("postgresql://h:0/db", "port"),
        ("postgresql://h:70000/db", "port"),
        ("mysql://h/db", "sqlite:///... or postgresql://..."),
        ("host=h password=secret", "not a URL"),
    ],
)
def test_what_would_have_no_effect_is_refused_by_name(url, problem):
    """Case P201."""
    with pytest.raises(RuleError, match="url") as refused:
        parse_database_url(url)
    assert problem in refused.value.problem
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("sqlite://authz.db", "sqlite:///authz.db"),
        ("sqlite:authz.db", "sqlite:///authz.db"),
        ("authz.db", "sqlite:///authz.db"),
        ("sqlite:///file:authz.db?mode=ro", "sqlite:///"),
    ],
)
def test_a_file_in_another_spelling_is_shown_as_it_is_written(url, remedy):
    """Case P202."""
    with pytest.raises(RuleError) as refused:
        parse_database_url(url)
    assert remedy in refused.value.remedy


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(url):
    """Each process would have one of its own, without a schema."""
    with pytest.raises(RuleError, match="in memory") as refused:
        parse_database_url(url)
    assert "sqlite:///authz-server.db" in refused.value.remedy


def test_files_of_tls_are_relative_to_the_settings(tmp_path, monkeypatch):
    """Case P203."""
    (tmp_path / "ca.crt").write_text("")
    monkeypatch.chdir("/")
    url = "postgresql://h/db?sslmode=verify-full&sslrootcert=ca.crt"
    settings = load(tmp_path, more=f"[database]\nurl = '{url}'")
    assert settings.database.parts.parameters["sslrootcert"] == str(tmp_path / "ca.crt")


@pytest.mark.parametrize("name", ["sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile"])
def test_a_file_of_tls_that_is_missing_is_refused_by_name(tmp_path, name):
    """Case P203."""
    error = refusal(tmp_path, more=f"[database]\nurl = 'postgresql://h/db?{name}=missing'")
    assert error.key == f"database.url: {name}"
    assert f"{tmp_path}/missing" in error.problem


def test_the_systems_certificates_are_no_file(tmp_path):
    url = "postgresql://h/db?sslrootcert=system"
    settings = load(tmp_path, more=f"[database]\nurl = '{url}'")
    assert settings.database.parts.parameters["sslrootcert"] == "system"


def test_no_password_of_a_url_is_shown(tmp_path):
    url = "postgresql://u:hidden@h1:1,h2:2/db?sslpassword=hidden"
    settings = load(tmp_path, top='environment = "development"', more=f"[database]\nurl = '{url}'")
    shown = [str(view.value) for view in describe_settings(settings)]
    assert not any("hidden" in each for each in (*shown, repr(settings)))
    assert "postgresql+psycopg://u:***@h1:1,h2:2/db?sslpassword=***" in shown


def test_a_password_in_a_settings_file_that_others_can_read_is_refused(tmp_path):
    """Case P204."""
    more = "[database]\nurl = 'postgresql://u:hidden@h/db'"
    error = refusal(tmp_path, more=more)
    assert error.key == "database.url"
    assert "open to others" in error.problem
    assert "hidden" not in str(error)
    file = tmp_path / "authz-server.toml"
    file.chmod(0o600)
    assert load(tmp_path, more=more).database.parts.password == "hidden"


@pytest.mark.parametrize("password", [b"\xff", b"a\0b"])
def test_a_password_that_libpq_cannot_take_is_refused(password):
    with pytest.raises(RuleError, match="password"):
        DatabaseSettings(url="postgresql://u@h/db", password=Secret(password))
