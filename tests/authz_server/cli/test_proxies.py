"""Which proxies stand in front: the option of `init`, its question, and the warning without one."""

import json

import pytest
from click.testing import CliRunner

from authz_server.cli.root import main
from authz_server.settings import load_settings
from support.minimal_settings import refusal
from support.settings_file import write_settings
from support.terminal import Terminal

ISSUER = ("--issuer", "https://auth.example.org")
QUESTION = "Does a reverse proxy with TLS stand in front of the server? [Y/n]:"
WHICH = "separated by blanks [127.0.0.1]:"
WARNING = "Warning: server.trusted_proxies: "
PRODUCTION = {"environment": "production", "logging": {"level": "info"}}


def trusted_proxies(directory):
    return load_settings(directory / "authz-server.toml").server.trusted_proxies


def init(directory, *options):
    return CliRunner().invoke(main, ["init", str(directory), *options])


def test_the_option_names_each_proxy_in_the_settings(tmp_path):
    named = ("--trusted-proxy", "127.0.0.1", "--trusted-proxy", "fd00::/64")
    result = init(tmp_path / "site", *ISSUER, *named)
    assert result.exit_code == 0, result.output
    assert trusted_proxies(tmp_path / "site") == ("127.0.0.1", "fd00::/64")
    assert WARNING not in result.stderr


@pytest.mark.parametrize("network", ["10.0.0.1/8", "proxy.example.org", "", "::/0", "0.0.0.0/00"])
def test_a_network_that_is_malformed_or_holds_everything_is_refused(tmp_path, network):
    """Case L129."""
    result = init(tmp_path / "site", *ISSUER, "--trusted-proxy", network)
    assert result.exit_code == 2
    assert "--trusted-proxy" in result.stderr
    assert not (tmp_path / "site").exists()


def test_at_a_terminal_it_asks_for_the_proxy_until_the_answer_can_be_used(tmp_path):
    with Terminal("init", tmp_path / "site", *ISSUER) as terminal:
        terminal.until(QUESTION)
        terminal.answer("y")
        for answer in ("10.0.0.1/8", "0.0.0.0/0", ","):
            terminal.until(WHICH)
            terminal.answer(answer)
            terminal.until("Error: ")
        terminal.until(WHICH)
        terminal.answer("10.0.0.7, fd00::/64")
        status, output = terminal.end()
    assert status == 0
    assert "reverse proxy" not in output
    assert trusted_proxies(tmp_path / "site") == ("10.0.0.7", "fd00::/64")


def test_the_proposed_answers_name_a_proxy_on_this_machine(tmp_path):
    with Terminal("init", tmp_path / "site", *ISSUER) as terminal:
        terminal.until(QUESTION)
        terminal.answer("")
        terminal.until(WHICH)
        terminal.answer("")
        assert terminal.end()[0] == 0
    assert trusted_proxies(tmp_path / "site") == ("127.0.0.1",)


def test_without_a_proxy_it_warns(tmp_path):
    with Terminal("init", tmp_path / "site", *ISSUER) as terminal:
        terminal.until(QUESTION)
        terminal.answer("n")
        terminal.until(WARNING)
        assert terminal.end()[0] == 0
    assert trusted_proxies(tmp_path / "site") == ()


def test_a_question_that_is_broken_off_makes_nothing(tmp_path):
    with Terminal("init", tmp_path / "site", *ISSUER) as terminal:
        terminal.until(QUESTION)
        terminal.answer("\x04")
        assert terminal.end()[0] != 0
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    "options",
    [
        (*ISSUER, "--trusted-proxy", "127.0.0.1"),
        (*ISSUER, "--json"),
        ("--development",),
    ],
)
def test_at_a_terminal_it_does_not_ask_what_it_needs_not_know(tmp_path, options):
    with Terminal("init", tmp_path / "site", *options) as terminal:
        assert terminal.end()[0] == 0
    with Terminal("init", tmp_path / "site", *options) as again:
        assert again.end()[0] == 0


def test_elsewhere_it_does_not_ask_but_warns(tmp_path):
    result = init(tmp_path / "site", *ISSUER, "--json")
    assert result.exit_code == 0
    assert "reverse proxy" not in result.output
    assert WARNING in result.stderr
    assert all(step["made"] for step in json.loads(result.stdout)["steps"])


def test_the_check_warns_where_no_proxy_is_trusted(cli, tmp_path):
    cli.config = write_settings(tmp_path, cli.database_url, PRODUCTION)
    checked = cli.run("config", "check", "--offline", "--json")
    assert checked.exit_code == 0
    (warning,) = json.loads(checked.stdout)["warnings"]
    assert warning["key"] == "server.trusted_proxies"
    assert (
        "All clients then share the proxy's address in records and in throttling."
        in (warning["problem"])
    )
    assert "127.0.0.1" in warning["remedy"]
    told = cli.run("config", "check", "--offline").stderr
    assert told == f"Warning: {warning['key']}: {warning['problem']} {warning['remedy']}\n"


@pytest.mark.parametrize(
    "overrides",
    [
        {"environment": "development"},
        {"server": {"trusted_proxies": ["127.0.0.1"]}},
        {"server": {"tls_certificate": "pepper", "tls_private_key": "pepper"}},
    ],
)
def test_the_check_does_not_warn_where_addresses_are_known(cli, tmp_path, overrides):
    cli.config = write_settings(tmp_path, cli.database_url, PRODUCTION | overrides)
    checked = cli.run("config", "check", "--offline", "--json")
    assert json.loads(checked.stdout)["warnings"] == []
    assert "Warning" not in checked.stderr


@pytest.mark.parametrize("network", ["0.0.0.0/00", "0.0.0.0/0.0.0.0", "0::0/0"])
def test_production_trusts_no_network_of_every_address(tmp_path, network):
    """Case L129."""
    more = f"[server]\ntrusted_proxies = ['10.0.0.1', '{network}']"
    error = refusal(tmp_path, more=more)
    assert error.key == "server.trusted_proxies"
    assert "trusts every address" in error.problem
