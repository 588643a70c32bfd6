"""A default installation notices an older copy that was put in place while no server ran."""

import json
import sqlite3
import time
from contextlib import closing

import httpx
import pytest

from authz_server.settings import load_settings
from support.live_server import LiveServer
from support.parties import Parties, make_demo
from support.postgresql_access import database_name
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings

_SECONDS = 60.0
_STREAM = {"audit": {"destination": "stderr"}}


class Copies:
    """Copies of a database, of which the settings name one at a time."""

    def __init__(self, cli, folder, postgresql) -> None:
        self._cli, self._folder, self._postgresql = cli, folder, postgresql
        self._made: list[str] = []

    def write(self, **overrides):
        """Write the settings of a server whose audit records go to its standard error."""
        self._cli.config = write_settings(self._folder, self._cli.database_url, _STREAM | overrides)
        return self._cli.config

    def back_up(self) -> str:
        """Return the URL of a new copy; nothing may be connected to the database."""
        url = self._cli.database_url
        if url.startswith("sqlite"):
            path = self._folder / f"copy-{len(self._made)}.sqlite"
            original = url.removeprefix("sqlite:///")
            with closing(sqlite3.connect(original)) as source, closing(sqlite3.connect(path)) as to:
                source.backup(to)
            self._made.append(f"sqlite:///{path}")
        else:
            self._made.append(self._postgresql.create_database(database_name(url)))
        return self._made[-1]

    def restore(self, copy: str, **overrides) -> None:
        """Put a copy in the place of the database."""
        self._cli.database_url = copy
        self.write(**overrides)

    def drop(self) -> None:
        for url in self._made:
            if url.startswith("postgresql"):
                self._postgresql.drop_database(url)


class Server(LiveServer):
    """A server that may start without being ready."""

    awaited = 200

    def readiness(self) -> httpx.Response:
        return httpx.get(f"{self.health_url}/health/ready", timeout=10)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            try:
                answer = self.readiness()
            except httpx.HTTPError:
                answer = None
            if answer is not None and self._is_awaited(answer):
                return
            time.sleep(0.1)
        pytest.fail(f"the readiness is not {self.awaited}:\n{self.log()}")

    def _is_awaited(self, answer: httpx.Response) -> bool:
        if answer.status_code != self.awaited:
            return False
        return self.awaited == 200 or answer.json()["failed"] == ["restored_database"]


@pytest.fixture
def copies(cli, tmp_path, postgresql):
    made = Copies(cli, tmp_path, postgresql)
    yield made
    made.drop()


@pytest.fixture
def stopped(cli, prepare, copies):
    """The command line of a server that does not run, with the clients payer and other."""
    prepare(
        cli,
        ("keys", "init"),
        ("scope", "import", "g2p-connect"),
        *(
            ("client", "create", name, "--name", name, "--scope", "mapper/link")
            for name in ("payer", "other")
        ),
    )
    copies.write()
    return cli


def content(cli) -> dict:
    return json.loads(cli.config.with_name("latest-change.json").read_text())


def test_a_revocation_survives_a_crash_and_an_older_copy(cli, copies, tmp_path):
    """A server that is killed after its answer, restored and started again.

    Case Q224.
    """
    server = Server(copies.write, tmp_path)
    parties = Parties(load_settings(cli.config), SecretsWatch())
    with parties.together():
        parties.create_first_keys()
        demo = make_demo(parties)
    with server:
        asked = {"grant_type": "client_credentials", "scope": "mapper/link", **demo.post.form()}
        token = httpx.post(f"{server.base_url}/oauth2/token", data=asked).json()["access_token"]

        def is_active() -> bool:
            answer = httpx.post(
                f"{server.base_url}/oauth2/introspect",
                data={"token": token},
                headers=demo.mapper.headers(),
            )
            assert answer.status_code == 200, answer.text
            return answer.json()["active"]

        assert is_active()
        server.stop()
        copy = copies.back_up()
        server.start()
        revoking = {"token": token, **demo.post.form()}
        assert httpx.post(f"{server.base_url}/oauth2/revoke", data=revoking).status_code == 200
        server.kill()
        copies.restore(copy, **server.overrides)
        server.awaited = 503
        server.start()
        assert is_active(), "the copy is not older"
        assert "token.revoked" in server.readiness().json()["reasons"]["restored_database"]
        # Also where nobody asks for the readiness.
        server.await_log("_latest_change failed", _SECONDS)
        for command in (("db", "check"), ("config", "check")):
            refusal = cli.refused(*command)
            assert "The database lost token.revoked" in refusal
            assert "authz-server revoke --before now" in refusal
        cli.must("revoke", "--before", "now", "--yes")
        server.awaited = 200
        server._await_ready()  # noqa: SLF001 - as at a start
        assert not is_active()
        server.stop()
        cli.must("db", "check")
        server.start()
        assert content(cli)["action"] != "token.revoked"


def test_commands_keep_their_changes_while_no_server_runs(stopped, copies):
    """Case Q224."""
    copy = copies.back_up()
    stopped.must("client", "disable", "payer")
    stopped.must("db", "check")
    copies.restore(copy)
    assert "The database lost client.disabled of payer" in stopped.refused("db", "check")
    for number in range(30):
        stopped.must("scope", "add", f"own/later-{number}")
    assert "The database lost client.disabled of payer" in stopped.refused("db", "check")
    stopped.must("revoke", "--before", "now", "--yes")
    stopped.must("db", "check")
    again = copies.back_up()
    stopped.must("client", "disable", "other")
    copies.restore(again)
    assert "The database lost client.disabled of other" in stopped.refused("db", "check")


@pytest.mark.parametrize(
    "act",
    [
        ("revoke", "--client", "payer", "--yes"),
        ("keys", "freeze", "es256", "--reason", "drill"),
        ("stop", "client", "payer", "--reason", "drill", "--yes"),
    ],
    ids=lambda each: each[0],
)
def test_each_kind_of_change_is_kept(stopped, copies, act):
    """Case Q224."""
    copy = copies.back_up()
    stopped.must(*act)
    copies.restore(copy)
    assert "The database lost " in stopped.refused("db", "check")


def test_the_file_of_another_database_is_replaced(stopped, caplog):
    stopped.must("client", "disable", "payer")
    path = stopped.config.with_name("latest-change.json")
    path.write_text(json.dumps(content(stopped) | {"database": "another", "id": 1_000_000}))
    stopped.must("db", "check")
    assert not caplog.messages
    stopped.must("client", "enable", "payer")
    assert [message for message in caplog.messages if str(path) in message] == [
        f"{path} is of another database: it is replaced"
    ]
    assert content(stopped)["action"] == "client.enabled"
    stopped.must("db", "check")


def test_a_server_runs_without_the_file_and_says_so_once(cli, prepare, copies, tmp_path):
    prepare(cli, ("keys", "init"), ("scope", "import", "g2p-connect"))
    audit = {"destination": "stderr", "latest_change_file": "missing/latest-change.json"}
    with Server(copies.write, tmp_path, audit=audit) as server:
        problem = f"{tmp_path / 'missing/latest-change.json'} cannot be used (No such file"
        server.await_log(problem, _SECONDS)
        for number in range(3):
            cli.must("scope", "add", f"own/{number}")
        time.sleep(6)
        assert server.log().count(problem) == 1
    refusal = cli.refused("config", "check")
    assert "audit.latest_change_file" in refusal
    assert "cannot be written (No such file or directory)" in refusal
