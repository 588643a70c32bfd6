"""A pepper with which the secrets in the database were not made."""

import logging

import pytest
from click.testing import CliRunner

from authz_server.app import EXTENSION, create_health_application
from authz_server.cli.root import main
from authz_server.cli.serve import require_prepared
from authz_server.clients.peppers import PepperReadiness
from authz_server.clients.secrets import SecretScheme
from authz_server.settings import load_settings
from support.settings_file import write_settings_beside

KEY = "clients.secret_pepper"
OTHER = "0123456789abcdef" * 4
FINGERPRINT = SecretScheme(OTHER.encode(), 1).fingerprint
PROBLEM = (
    f"{KEY}: the secrets and tokens of registration in the database ({{}}) were made with another "
    f"pepper than this one, whose fingerprint is {FINGERPRINT}: each is refused. Bring back the "
    "pepper with which they were made: a further node has the settings and secrets of the first. "
    "If it was replaced on purpose, every client needs a new secret; "
    "`authz-server client secret due` lists them."
)


@pytest.fixture
def first(cli, prepare):
    """The command line of a node whose database has keys and no secrets."""
    prepare(cli, ("scope", "import", "g2p-connect"), ("keys", "init"))
    return cli


def _create(cli, client_id):
    cli.must("client", "create", client_id, "--name", "Ministry", "--scope", "mapper/link")


def _give_other_pepper(cli, tmp_path):
    """Have the command line use settings of another node, with another pepper."""
    cli.config = write_settings_beside(tmp_path, "second", cli.database_url, {})
    (cli.config.parent / "pepper").write_text(OTHER)


def _warnings(cli):
    return [each for each in cli.warnings() if each["key"] == KEY]


def _serve_warnings(cli, caplog):
    """Return what a start of the server logs."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        require_prepared(load_settings(cli.config))
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


def test_a_pepper_that_made_none_of_the_secrets_is_named(first, tmp_path, caplog):
    """The check refuses it; the server starts, because clients with keys go on."""
    _create(first, "ministry")
    first.must("resource-server", "create", "api", "--name", "A", "--identifier", "https://api.x")
    first.must("registration-token", "create", "--scope", "mapper/link", "--expires", "+7d")
    assert first.json("config", "check")["problems"] == []
    assert _serve_warnings(first, caplog) == []
    _give_other_pepper(first, tmp_path)
    assert PROBLEM.format(3) in first.refused("config", "check")
    assert _serve_warnings(first, caplog) == [PROBLEM.format(3)]
    assert "can be used" in first.must("config", "check", "--offline")


def test_init_with_another_pepper_warns(first, tmp_path):
    """As on a second node, whose folder `init` is to complete."""
    _create(first, "ministry")
    _give_other_pepper(first, tmp_path)
    result = CliRunner().invoke(main, ["init", str(first.config.parent)])
    assert result.exit_code == 0, result.output
    assert PROBLEM.format(1) in result.stderr


def test_a_pepper_without_secrets_or_with_ended_ones_is_accepted(first, tmp_path, caplog):
    _create(first, "ministry")
    (secret,) = first.json("client", "secret", "list", "ministry")
    first.must("client", "secret", "end", "ministry", secret["id"], "--yes")
    _give_other_pepper(first, tmp_path)
    assert first.json("config", "check")["problems"] == []
    assert _warnings(first) == []
    assert _serve_warnings(first, caplog) == []


def test_after_a_replacement_the_secrets_of_the_former_pepper_are_listed(first, tmp_path):
    """They stand first, whether they end soon or not, until they are ended."""
    _create(first, "ministry")
    _create(first, "office")
    (old,) = first.json("client", "secret", "list", "ministry")
    _give_other_pepper(first, tmp_path)
    assert old["pepper_fingerprint"] != FINGERPRINT
    due = [
        (each["id"], each["ends_at"], each["days_left"], each["other_pepper"])
        for each in first.json("client", "secret", "due")
    ]
    assert due == [("ministry", None, None, True), ("office", None, None, True)]
    first.must("client", "secret", "rotate", "ministry", "--end-old-at", "+2h", "--expires", "+9d")
    listed = first.json("client", "secret", "list", "ministry")
    assert [each["pepper_fingerprint"] for each in listed] == [
        old["pepper_fingerprint"],
        FINGERPRINT,
    ]
    due = [(each["id"], each["other_pepper"]) for each in first.json("client", "secret", "due")]
    assert due == [("ministry", True), ("office", True), ("ministry", False)]
    assert first.json("config", "check")["problems"] == []
    assert _warnings(first) == [
        {
            "key": KEY,
            "problem": "Another pepper made some of the secrets (2): they are refused.",
            "remedy": "`authz-server client secret due` lists them.",
        }
    ]
    first.must("client", "secret", "end", "ministry", old["id"])
    first.must("client", "disable", "office")
    due = [(each["id"], each["other_pepper"]) for each in first.json("client", "secret", "due")]
    assert due == [("ministry", False)]


def test_readiness_is_degraded_and_logs_it_once(first, tmp_path, caplog):
    _create(first, "ministry")
    _give_other_pepper(first, tmp_path)
    application = create_health_application(load_settings(first.config))
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        answer = application.test_client().get("/health/ready")
        assert answer.status_code == 200
        assert answer.get_json() == {
            "status": "degraded",
            "failed": [],
            "degraded": [PROBLEM.format(1)],
        }
    assert [each.getMessage() for each in caplog.records] == [PROBLEM.format(1)]
    application.extensions[EXTENSION].database.close()


def test_the_database_is_asked_at_intervals(first, tmp_path, caplog):
    _create(first, "ministry")
    _give_other_pepper(first, tmp_path)
    application = create_health_application(load_settings(first.config))
    services = application.extensions[EXTENSION]
    seconds = [1.0]
    readiness = PepperReadiness(
        services.database, services.secrets.fingerprint, services.clock, lambda: seconds[0]
    )
    caplog.set_level(logging.INFO, "authz_server.clients.peppers")
    assert readiness.degradations() == [PROBLEM.format(1)]
    first.must("client", "secret", "add", "ministry")
    seconds[0] += readiness.INTERVAL_SECONDS - 1
    assert readiness.degradations() == [PROBLEM.format(1)]
    seconds[0] += 1
    assert readiness.degradations() == []
    logged = [each.getMessage() for each in caplog.records if each.name.endswith(".peppers")]
    assert logged == [
        PROBLEM.format(1),
        "the database has secrets that were made with this pepper",
    ]
    services.database.close()
