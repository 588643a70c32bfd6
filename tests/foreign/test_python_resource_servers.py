"""The printed settings for django-oauth-toolkit and keystonemiddleware at work."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from support.ports import release_port, reserve_port
from support.printed_settings import Scene, scene
from support.printed_verifiers import replaced, running
from support.probing import documented, probe

__all__ = ["scene"]

APPLICATIONS = Path(__file__).parent / "applications"
SCOPE = "mapper/link"
#: Seconds for which django-oauth-toolkit keeps an answer here, in place of the printed ten.
CACHED = 2


@dataclass(frozen=True)
class Api:
    """An API at work with printed settings, and how long these let it accept a revoked token."""

    name: str
    url: str
    client: httpx.Client
    cached_seconds: int
    #: Of a request without a sound token, of one without the scope.
    refusals: tuple[int, int]

    def status(self, token: str | None) -> int:
        """Return the status of the response to a token."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return self.client.post(self.url, headers=headers).status_code


@contextmanager
def running_api(program: str, settings: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run a program of the folder `applications`; yield its address."""
    port = reserve_port()
    command = [sys.executable, str(APPLICATIONS / program), str(settings), str(port), SCOPE]
    log = settings.with_suffix(".log")
    with running(command, port, log, environment) as url:
        yield url
    release_port(port)


@pytest.fixture(scope="module")
def oauth_toolkit(scene: Scene) -> Iterator[Api]:
    secret = ("/etc/authz/mapper.secret", 1, str(scene.folder / "mapper.secret"))
    shortened = ('CACHING_SECONDS": 10', 1, f'CACHING_SECONDS": {CACHED}')
    settings = scene.folder / "oauth_toolkit.py"
    settings.write_text(replaced(scene.snippet("django-oauth-toolkit"), secret, shortened))
    with running_api("oauth_toolkit_api.py", settings, {}) as url, httpx.Client() as client:
        yield Api("django-oauth-toolkit", url, client, cached_seconds=CACHED, refusals=(403, 403))


@pytest.fixture(scope="module")
def keystonemiddleware(scene: Scene) -> Iterator[Api]:
    settings = scene.folder / "keystonemiddleware.conf"
    settings.write_text(scene.snippet("keystonemiddleware"))
    secret = {"OS_EXT_OAUTH2_AUTH__CLIENT_SECRET": scene.demo.mapper.secret}
    with (
        running_api("keystonemiddleware_api.py", settings, secret) as url,
        httpx.Client() as client,
    ):
        yield Api("keystonemiddleware", url, client, cached_seconds=0, refusals=(401, 403))


@pytest.fixture(params=["oauth_toolkit", "keystonemiddleware"])
def api(request: pytest.FixtureRequest) -> Api:
    return request.getfixturevalue(request.param)


def seconds_until(condition: Callable[[], bool], limit: float) -> float:
    """Return how long it takes until a condition holds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit
        time.sleep(0.1)
    return time.monotonic() - began


def test_tokens_of_others_and_without_the_scope_are_refused(scene, api):
    invalid, insufficient = api.refusals
    assert api.status(scene.token(SCOPE)) == 200
    assert api.status(scene.token(f"mapper/resolve {SCOPE}")) == 200
    for refused in (None, "invented", scene.token("disburse/disburse")):
        assert api.status(refused) == invalid
    assert api.status(scene.token("mapper/resolve")) == insufficient


def test_a_revoked_token_is_refused_once_the_kept_answer_is_too_old(scene, api, record_property):
    token = scene.token(SCOPE)
    assert api.status(token) == 200
    scene.revoke(token)
    accepted = seconds_until(lambda: api.status(token) != 200, api.cached_seconds + 3)
    record_property("revoked token accepted", f"{accepted:.1f} s")


def test_each_lets_through_what_the_document_says(scene, api, tmp_path):
    assert probe(scene, api.url, tmp_path, "POST") == documented(api.name)


def test_nothing_new_is_accepted_while_the_server_is_unavailable(scene, api):
    token = scene.token(SCOPE)
    scene.server.stop()
    status = api.status(token)
    scene.server.start()
    assert status != 200
    assert api.status(token) == 200
