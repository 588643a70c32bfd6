"""A running server whose database fails over behind one address: revocations hold."""

import time
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from sqlalchemy import func, select

from authz_server.settings import load_settings
from authz_server.tokens.models import RevokedToken
from support.fail_over import FailOverPair
from support.live_server import LiveServer, call_cli
from support.parties import Parties, make_demo
from support.roles import attached
from support.settings_file import write_settings

#: What the issue promises for writes; reads follow the same connections.
LIMIT_SECONDS = 10.0


class Scene:
    """A live server on a pair of databases, and a command line on the second of them."""

    def __init__(self, stack: ExitStack, folder, watch) -> None:
        self.pair = FailOverPair(stack)
        first, second = folder / "first", folder / "second"
        first.mkdir()
        second.mkdir()
        config = write_settings(first, self.pair.url, {})
        parties = Parties(load_settings(config), watch)
        parties.create_first_keys()
        self.demo = make_demo(parties)
        self.second_config = write_settings(second, self.pair.second.url(self.pair.name), {})
        for name in ("pepper", "key-encryption-key"):
            (second / name).write_bytes((first / name).read_bytes())
        self.server = stack.enter_context(
            LiveServer(lambda **overrides: write_settings(first, self.pair.url, overrides), folder)
        )
        self.client = self.demo.clients["client_secret_post"]

    def post(self, path: str, caller, **form: str) -> httpx.Response:
        return httpx.post(
            f"{self.server.base_url}/oauth2/{path}",
            data=caller.form() | form,
            headers=caller.headers(),
            timeout=10,
        )

    def token(self) -> str:
        answer = self.post(
            "token", self.client, grant_type="client_credentials", scope="mapper/link"
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]

    def introspect(self, token: str) -> httpx.Response:
        return self.post("introspect", self.demo.mapper, token=token)


@contextmanager
def await_within(seconds: float):
    deadline = time.monotonic() + seconds

    def pause() -> None:
        assert time.monotonic() < deadline
        time.sleep(0.1)

    yield pause


@pytest.fixture
def scene(tmp_path, secrets_watch):
    with ExitStack() as stack:
        yield Scene(stack, tmp_path, secrets_watch)


def test_a_former_primary_that_goes_on_answers_for_seconds_only(scene):
    """Case Q221."""
    tokens = [scene.token() for _ in range(3)]
    for token in tokens * 3:
        assert scene.introspect(token).json()["active"] is True
    scene.pair.fail_over()
    revoked = call_cli("revoke", "--client", scene.client.id, "--yes", config=scene.second_config)
    assert revoked.returncode == 0, revoked.stderr
    with await_within(LIMIT_SECONDS) as pause:
        while scene.introspect(tokens[0]).json().get("active") is not False:
            pause()
    for token in tokens * 5:
        answer = scene.introspect(token)
        assert (answer.status_code, answer.json()) == (200, {"active": False})
    # Writes reach the new primary: what is revoked here is revoked there.
    with await_within(LIMIT_SECONDS) as pause:
        while (
            issued := scene.post(
                "token", scene.client, grant_type="client_credentials", scope="mapper/link"
            )
        ).status_code != 200:
            pause()
    fresh = issued.json()["access_token"]
    assert scene.introspect(fresh).json()["active"] is True
    assert scene.post("revoke", scene.client, token=fresh).status_code == 200
    assert scene.introspect(fresh).json() == {"active": False}
    second = scene.pair.second.url(scene.pair.name)
    with attached(second) as database, database.reading() as session:
        assert session.scalar(select(func.count()).select_from(RevokedToken)) == 1
    assert scene.server.is_ready()


def test_what_the_new_primary_lacks_is_named(scene):
    """Case Q224: the replica lagged when it was promoted."""
    token = scene.token()
    scene.pair.await_replay()
    scene.pair.second.fall_behind()
    assert scene.post("revoke", scene.client, token=token).status_code == 200
    scene.pair.second.promote()
    scene.pair.proxy.target_port = scene.pair.second.port
    found = call_cli("db", "check", config=scene.second_config)
    assert found.returncode == 0, "the audit file is another node's"
    found = call_cli("db", "check", config=scene.server.settings_path)
    assert found.returncode == 1
    assert "older than the audit file: token.revoked" in found.stderr
