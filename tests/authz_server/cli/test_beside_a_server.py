"""Commands beside a running server, which has to follow within a second."""

import os
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest

from support.live_server import LiveServer
from support.settings_file import write_settings

WITHIN_SECONDS = 1.0


@pytest.fixture
def live(cli, tmp_path):
    """A running server, and the command line on its settings."""
    folder = tmp_path / "live"
    folder.mkdir()

    def settings(server):
        overrides = {"issuer": f"http://127.0.0.1:{server['port']}", "server": server}
        cli.config = write_settings(folder, cli.database_url, overrides)
        cli.must("init", folder, "--import", "g2p-connect")
        return cli.config

    with LiveServer(settings, folder, workers=2) as server:
        yield server


@pytest.fixture
def parties(live, cli):
    """A client and a resource server, made beside the running server; their secrets."""
    mapper = cli.json(
        *("resource-server", "create", "mapper", "--name", "Mapper", "--scope", "mapper/*"),
        *("--identifier", "https://mapper.example"),
    )
    client = cli.json(
        *("client", "create", "ministry", "--name", "Ministry"),
        *("--scope", "mapper/link", "--scope", "mapper/resolve"),
    )
    _await_status(lambda: _ask(live, client["secret"]), 200)
    return {"mapper": mapper, "client": client}


def _ask(server, secret, scope="mapper/link"):
    form = {"grant_type": "client_credentials", "client_id": "ministry", "scope": scope}
    form["client_secret"] = secret
    return httpx.post(f"{server.base_url}/oauth2/token", data=form, timeout=5)


def _is_active(server, parties, token):
    answer = httpx.post(
        f"{server.base_url}/oauth2/introspect",
        data={"token": token},
        auth=("mapper", parties["mapper"]["secret"]),
        timeout=5,
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["active"]


def _await_status(ask, status):
    """Ask until every worker must have answered so, no longer than a second after the command."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while (answer := ask()).status_code != status:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.02)
    time.sleep(max(0.0, deadline - time.monotonic()))
    # On a new connection each: the workers take turns.
    assert {ask().status_code for _ in range(8)} == {status}


def test_a_new_client_gets_a_token_within_a_second(live, parties):
    assert _ask(live, parties["client"]["secret"]).json()["scope"] == "mapper/link"


def test_a_disabled_client_is_refused_within_a_second(live, parties, cli):
    """Case A15. Case H98."""
    secret = parties["client"]["secret"]
    cli.must("client", "disable", "ministry")
    _await_status(lambda: _ask(live, secret), 401)
    cli.must("client", "enable", "ministry")
    _await_status(lambda: _ask(live, secret), 200)
    cli.must("client", "delete", "ministry", "--yes")
    _await_status(lambda: _ask(live, secret), 401)


def test_an_ended_secret_is_refused_within_a_second_and_the_new_one_works(live, parties, cli):
    """Case A12."""
    old = parties["client"]
    new = cli.json("client", "secret", "add", "ministry")
    _await_status(lambda: _ask(live, new["secret"]), 200)
    assert _ask(live, old["secret"]).status_code == 200
    cli.must("client", "secret", "end", "ministry", old["secret_id"])
    _await_status(lambda: _ask(live, old["secret"]), 401)
    assert _ask(live, new["secret"]).status_code == 200


def test_a_withdrawn_scope_is_refused_within_a_second(live, parties, cli):
    """Case B20."""
    cli.must("client", "update", "ministry", "--scope", "mapper/resolve")
    _await_status(lambda: _ask(live, parties["client"]["secret"]), 400)


def test_a_revocation_is_in_force_when_the_command_returns(live, parties, cli):
    """Case F72. Case H98."""
    (key,) = [each for each in cli.json("keys", "list") if each["signs"]]
    for option in (
        ("--client", "ministry"),
        ("--scope", "mapper.link"),
        ("--key", key["kid"]),
        ("--before", "now"),
    ):
        token = _ask(live, parties["client"]["secret"]).json()["access_token"]
        assert _is_active(live, parties, token)
        cli.must("revoke", *option, "--reason", "a test", "--yes")
        assert {_is_active(live, parties, token) for _ in range(6)} == {False}
    actions = [action for _, action, _ in cli.audit_records()]
    assert actions.count("cut_off.recorded") == 4


def test_slow_senders_do_not_stop_the_server(live, parties):
    """Case I101."""
    slow = []
    for _ in range(100):
        peer = socket.create_connection(("127.0.0.1", live.port), timeout=5)
        peer.sendall(
            b"POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n\r\ngrant"
        )
        slow.append(peer)
    begun = time.monotonic()
    answers = [_ask(live, parties["client"]["secret"]).status_code for _ in range(20)]
    assert answers == [200] * 20
    assert time.monotonic() - begun < 10
    for peer in slow:
        peer.close()


def test_it_ends_at_sigterm_with_status_0(live, parties):
    assert _ask(live, parties["client"]["secret"]).status_code == 200
    assert live.stop() == 0


def test_workers_do_not_outlive_the_main_process(live):
    workers = live.worker_process_ids()
    assert len(workers) == 2
    os.kill(live.process_id, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with socket.socket() as peer:
        assert peer.connect_ex(("127.0.0.1", live.port)) != 0
