"""A flood of answers from an OpenID Connect provider that is slow, or that knows none of them."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.cookies import SimpleCookie
from threading import Event, Semaphore
from urllib.parse import urlencode

import httpx
import pytest

from authz_server.admin.people.cookies import COOKIE
from authz_server.admin.people.refusals import LogInRefusedError
from support.lying_provider import CLIENT_ID, CLIENT_SECRET, LyingProvider
from support.people_site import Visitor, running_people_site
from support.ports import release_port, reserve_port
from support.settings_file import write_secret

CALLBACK = "/login/openid/callback"
#: As many as a process exchanges at once, wait for that, and some that are refused.
BROWSERS = 14


@pytest.fixture
def provider(tmp_path):
    """A provider, and the secret that the server has there."""
    write_secret(tmp_path / "client-secret", CLIENT_SECRET)
    with LyingProvider() as made:
        yield made


def tables(provider: LyingProvider, **admin) -> dict[str, object]:
    openid = {
        "issuer": provider.issuer,
        "client_id": CLIENT_ID,
        "client_secret": {"file": "client-secret"},
        "roles": {"security": ["security-officer"]},
    }
    return {
        "admin": {**admin, "openid": openid},
        "outbound": {"plain_http": True, "timeout_seconds": 30},
    }


def test_few_answers_wait_for_a_slow_provider(tmp_path, sqlite_url, provider, monkeypatch):
    """Invented codes leave threads for the other pages, under any WSGI server."""
    waiting, released = Semaphore(0), Event()

    def wait(_log_in):
        waiting.release()
        assert released.wait(60)
        raise LogInRefusedError("provider_unavailable")

    with (
        running_people_site(tmp_path, sqlite_url, tables(provider)) as site,
        ThreadPoolExecutor(4) as pool,
    ):
        visitors = [Visitor(site) for _ in range(5)]
        answers = [_answer(provider, each) for each in visitors]
        with monkeypatch.context() as patched:
            patched.setattr(site.people.provider, "finish", wait)
            held = zip(visitors[:4], answers[:4], strict=True)
            slow = [pool.submit(visitor.get, path) for visitor, path in held]
            for _ in slow:
                assert waiting.acquire(timeout=60)
            refused = visitors[4].get(answers[4])
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) > 0
            assert visitors[4].get("/login").status_code == 200
            released.set()
            assert [each.result().status_code for each in slow] == [503] * 4
        # The refused answer is still good.
        assert visitors[4].get(answers[4]).status_code == 303


def test_a_log_in_sends_the_provider_one_request(tmp_path, sqlite_url, provider):
    """A ``state`` with invented codes would otherwise make this server flood the provider."""
    with running_people_site(tmp_path, sqlite_url, tables(provider)) as site:
        visitor = Visitor(site)
        answered = provider.authorise(visitor.get("/login/openid").headers["Location"])
        reasons = []
        for code in ("x1", "x2", answered["code"]):
            visitor.worker = len(reasons) % 2
            visitor.get(f"{CALLBACK}?{urlencode({**answered, 'code': code})}")
            reasons.append(site.records("operator.sign_in_refused")[-1]["reason"])
        assert reasons == ["provider_refused", "log_in_over", "log_in_over"]
        assert [form["code"] for form in provider.token_requests] == [["x1"]]
        # The person begins again.
        assert visitor.get(_answer(provider, visitor)).status_code == 303


def test_a_slow_provider_keeps_no_thread_of_the_listener(start_live_server, provider):
    """A worker answers everything else of the management listener on two threads."""
    port = reserve_port()
    start_live_server(**tables(provider, enabled=True, port=port))
    url = f"http://localhost:{port}"
    with _held(provider) as waiting, ThreadPoolExecutor(BROWSERS + 1) as pool:
        browsers = [_begin(url, provider) for _ in range(BROWSERS)]
        # The first one asks twice: one browser has one code exchanged at a time.
        slow = [pool.submit(_get, *each) for each in [browsers[0], *browsers]]
        for _ in range(4):
            assert waiting.acquire(timeout=20)
        for path, status in (("/login", 200), ("/admin/v1/clients", 401), ("/login/openid", 302)):
            assert httpx.get(f"{url}{path}", timeout=10).status_code == status
        waiting.provider_goes_on()
        statuses = [each.result() for each in slow]
    assert statuses.count(303) >= 4
    assert set(statuses) <= {303, 400, 503}
    assert statuses.count(503) >= 1
    assert len(provider.token_requests) == statuses.count(303)
    release_port(port)


class _Held(Semaphore):
    """Counts the requests that wait at the provider."""

    def __init__(self) -> None:
        super().__init__(0)
        self._released = Event()
        self.provider_goes_on = self._released.set

    def wait(self) -> None:
        """Wait until the provider goes on."""
        self.release()
        assert self._released.wait(60)


@contextmanager
def _held(provider: LyingProvider):
    """The provider answers no code until it goes on."""
    held, sign = _Held(), provider.sign

    def sign_later(claims):
        held.wait()
        return sign(claims)

    provider.sign = sign_later
    try:
        yield held
    finally:
        held.provider_goes_on()


def _begin(url: str, provider: LyingProvider) -> tuple[str, str]:
    """Begin a log-in in a new browser; return its cookie, and where the provider sends it."""
    answer = httpx.get(f"{url}/login/openid", timeout=20)
    cookie = SimpleCookie(answer.headers["Set-Cookie"])[COOKIE].value
    back = urlencode(provider.authorise(answer.headers["Location"]))
    return cookie, f"{url}{CALLBACK}?{back}"


def _get(cookie: str, url: str) -> int:
    return httpx.get(url, headers={"Cookie": f"{COOKIE}={cookie}"}, timeout=60).status_code


def _answer(provider: LyingProvider, visitor: Visitor) -> str:
    """Return where the provider sends a browser back to."""
    url = visitor.get("/login/openid").headers["Location"]
    return f"{CALLBACK}?{urlencode(provider.authorise(url))}"
