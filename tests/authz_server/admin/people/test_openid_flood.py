"""A flood of answers from an OpenID Connect provider that is slow."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Semaphore
from urllib.parse import urlencode

from authz_server.admin.people.refusals import LogInRefusedError
from support.lying_provider import CLIENT_ID, CLIENT_SECRET, LyingProvider
from support.people_site import Visitor, running_people_site


def test_few_answers_wait_for_a_slow_provider(tmp_path, sqlite_url, monkeypatch):
    """Invented codes leave threads for the other pages."""
    waiting, released = Semaphore(0), Event()

    def wait(_log_in):
        waiting.release()
        assert released.wait(60)
        raise LogInRefusedError("provider_unavailable")

    (tmp_path / "client-secret").write_text(CLIENT_SECRET)
    with LyingProvider() as provider:
        openid = {
            "issuer": provider.issuer,
            "client_id": CLIENT_ID,
            "client_secret": {"file": "client-secret"},
            "roles": {"security": ["security-officer"]},
        }
        tables = {"admin": {"openid": openid}, "outbound": {"plain_http": True}}
        with (
            running_people_site(tmp_path, sqlite_url, tables) as site,
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


def _answer(provider: LyingProvider, visitor: Visitor) -> str:
    """Return where the provider sends a browser back to."""
    url = visitor.get("/login/openid").headers["Location"]
    return f"/login/openid/callback?{urlencode(provider.authorise(url))}"
