"""Commands beside a running server, which has to follow within a second."""

import os
import signal
import socket
import time
from functools import cache

import httpx
import pytest

from support.live_server import LiveServer
from support.settings_file import write_settings
from support.tied_process import await_end_of

WITHIN_SECONDS = 1.0
#: A busy machine needs longer.
BUSY_SECONDS = 15.0


@pytest.fixture(scope="module")
def beside(module_database_url, tmp_path_factory, make_cli):
    """A server, and the command line on its settings, with a resource server."""
    folder = tmp_path_factory.mktemp("live")

    def settings(server):
        overrides = {"issuer": f"http://127.0.0.1:{server['port']}", "server": server}
        return write_settings(folder, module_database_url, overrides)

    cli = make_cli(folder, module_database_url)
    server = LiveServer(settings, folder, workers=2)
    cli.must("init", folder, "--import", "g2p-connect")
    cli.mapper = cli.json(
        *("resource-server", "create", "mapper", "--name", "Mapper", "--scope", "mapper/*"),
        *("--identifier", "https://mapper.example"),
    )
    with server:
        yield server, cli


@pytest.fixture
def live(beside):
    """The running server."""
    server, _ = beside
    if not server.is_ready():
        server.stop()
        server.start()
    return server


@pytest.fixture
def cli(beside):
    """The command line beside it."""
    return beside[1]


@pytest.fixture
def client(live, cli):
    """A client made beside the running server."""
    scopes = ("--scope", "mapper/link", "--scope", "mapper/resolve")
    client = cli.json("client", "create", "--name", "Ministry", *scopes)
    _await_status(lambda: _ask(live, client), 200)
    return client


def _ask(server, client, secret=None, scope="mapper/link"):
    form = {"grant_type": "client_credentials", "client_id": client["id"], "scope": scope}
    form["client_secret"] = secret or client["secret"]
    return _sender().post(f"{server.base_url}/oauth2/token", data=form, timeout=5)


@cache
def _sender():
    """Return a client with a new connection for each request: the workers take turns."""
    return httpx.Client(limits=httpx.Limits(max_keepalive_connections=0))


def _is_active(server, mapper, token):
    answer = _sender().post(
        f"{server.base_url}/oauth2/introspect",
        data={"token": token},
        auth=("mapper", mapper["secret"]),
        timeout=5,
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["active"]


def _await_status(ask, status):
    """Ask until every worker must have answered so, no longer than a second after the command."""
    began = time.monotonic()
    while (answer := ask()).status_code != status:
        assert time.monotonic() < began + BUSY_SECONDS, answer.text
        time.sleep(0.02)
    time.sleep(max(0.0, began + WITHIN_SECONDS - time.monotonic()))
    # On a new connection each: the workers take turns.
    while {ask().status_code for _ in range(8)} != {status}:
        assert time.monotonic() < began + BUSY_SECONDS


def test_a_new_client_gets_a_token_within_a_second(live, client):
    assert _ask(live, client).json()["scope"] == "mapper/link"


def test_a_disabled_client_is_refused_within_a_second(live, client, cli):
    """Case A15. Case H98."""
    cli.must("client", "disable", client["id"])
    _await_status(lambda: _ask(live, client), 401)
    cli.must("client", "enable", client["id"])
    _await_status(lambda: _ask(live, client), 200)
    cli.must("client", "delete", client["id"], "--yes")
    _await_status(lambda: _ask(live, client), 401)


def test_an_ended_secret_is_refused_within_a_second_and_the_new_one_works(live, client, cli):
    """Case A12."""
    new = cli.json("client", "secret", "add", client["id"])
    _await_status(lambda: _ask(live, client, new["secret"]), 200)
    assert _ask(live, client).status_code == 200
    cli.must("client", "secret", "end", client["id"], client["secret_id"])
    _await_status(lambda: _ask(live, client), 401)
    assert _ask(live, client, new["secret"]).status_code == 200


def test_a_withdrawn_scope_is_refused_within_a_second(live, client, cli):
    """Case B20."""
    cli.must("client", "update", client["id"], "--scope", "mapper/resolve")
    _await_status(lambda: _ask(live, client), 400)


def test_a_revocation_is_in_force_when_the_command_returns(live, client, cli):
    """Case F72. Case H98."""
    (key,) = [each for each in cli.json("keys", "list") if each["signs"]]
    before = len(cli.audit_records())
    for option in (
        ("--client", client["id"]),
        ("--scope", "mapper.link"),
        ("--key", key["kid"]),
        ("--before", "now"),
    ):
        token = _ask(live, client).json()["access_token"]
        assert _is_active(live, cli.mapper, token)
        cli.must("revoke", *option, "--reason", "a test", "--yes")
        assert {_is_active(live, cli.mapper, token) for _ in range(6)} == {False}
    actions = [action for _, action, _ in cli.audit_records()[before:]]
    assert actions.count("cut_off.recorded") == 4


def test_slow_senders_do_not_stop_the_server(live, client):
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
    answers = [_ask(live, client).status_code for _ in range(20)]
    assert answers == [200] * 20
    assert time.monotonic() - begun < 10
    for peer in slow:
        peer.close()


def test_it_ends_at_sigterm_with_status_0_and_no_worker_outlives_a_killed_one(live):
    assert live.stop() == 0
    live.start()
    workers = live.worker_process_ids()
    assert len(workers) == 2
    os.kill(live.process_id, signal.SIGKILL)
    await_end_of(workers, 60)
    with socket.socket() as peer:
        assert peer.connect_ex(("127.0.0.1", live.port)) != 0
