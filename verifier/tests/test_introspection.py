"""Introspection: modes, cache, breaker, for threads and for asyncio."""

import asyncio
import json
import time
from urllib.parse import urlsplit

import pytest

from authz_verifier import AsyncVerifier, Refusal, Verifier
from authz_verifier.introspection import Introspection
from authz_verifier.metrics import INTROSPECTIONS, Counters
from authz_verifier.testing import DEFAULT_AUDIENCE, LocalIssuer

SCOPE, MONEY = "mapper/link", "disburse"
CREDENTIALS = {"client_id": "mapper", "client_secret": "s%c:t"}


@pytest.fixture(params=["sync", "async"])
def make(request, issuer):
    """A function of settings: a function of a request and scopes that authenticates."""
    closing = []

    def of_threads(settings):
        verifier = Verifier(issuer.url, DEFAULT_AUDIENCE, **CREDENTIALS, **settings)
        closing.append(verifier.close)
        return verifier, verifier.authenticate

    def of_asyncio(settings):
        runner = asyncio.Runner()
        verifier = AsyncVerifier(issuer.url, DEFAULT_AUDIENCE, **CREDENTIALS, **settings)
        closing.extend([lambda: runner.run(verifier.aclose()), runner.close])
        return verifier, lambda *call: runner.run(verifier.authenticate(*call))

    yield lambda **settings: (of_threads if request.param == "sync" else of_asyncio)(settings)
    for close in closing:
        close()


def refuse(authenticate, *call) -> Refusal:
    with pytest.raises(Refusal) as caught:
        authenticate(*call)
    return caught.value


def authenticate_often(authenticate, request):
    for _ in range(1_000):
        authenticate(request)
        time.sleep(0.01)


def test_a_revoked_token_is_refused_at_once(make, issuer, present):
    _, authenticate = make(mode="introspection")
    token = issuer.token(SCOPE)
    assert authenticate(present(token), SCOPE).introspected
    issuer.revoke(token)
    assert refuse(authenticate, present(token), SCOPE).reason == "inactive"
    assert issuer.fetches == 0


def test_a_response_is_cached_within_its_bound(make, issuer, present):
    verifier, authenticate = make(mode="introspection", introspection_cache_seconds=60)
    token = issuer.token(SCOPE)
    for _ in range(5):
        authenticate(present(token))
    assert issuer.introspections == 1
    issuer.revoke(token)
    assert authenticate(present(token))
    verifier.drop_caches(token)
    assert refuse(authenticate, present(token)).reason == "inactive"


def test_a_response_is_not_cached_beyond_the_expiry(make, issuer, present):
    _, authenticate = make(mode="introspection", introspection_cache_seconds=60)
    token = issuer.token(exp=int(time.time()) + 2)
    authenticate(present(token))
    time.sleep(2.2)
    assert refuse(authenticate, present(token)).reason == "inactive"
    assert issuer.introspections == 2


@pytest.mark.parametrize(("max_age", "asked"), [(0, 3), (60, 1), ("long", 1)])
def test_a_response_is_not_cached_beyond_its_max_age(make, issuer, present, max_age, asked):
    _, authenticate = make(mode="introspection", introspection_cache_seconds=60)
    token = issuer.token(max_age=max_age)
    for _ in range(3):
        authenticate(present(token))
    assert issuer.introspections == asked


def test_tokens_with_a_common_beginning_are_not_mixed_up(make, issuer, present):
    _, authenticate = make(mode="introspection", introspection_cache_seconds=60)
    token = issuer.token()
    authenticate(present(token))
    assert refuse(authenticate, present(token[:-1])).reason == "inactive"


@pytest.mark.parametrize(
    "changes", [{"aud": "https://other.example"}, {"iss": "https://x.example"}]
)
def test_a_foreign_token_is_refused_although_it_is_active(make, issuer, present, changes):
    _, authenticate = make(mode="introspection")
    assert refuse(authenticate, present(issuer.token(**changes))).error == "invalid_token"


def test_hybrid_queries_the_server_for_money_alone(make, issuer, present):
    _, authenticate = make(mode="hybrid", money_scopes=[MONEY])
    token = issuer.token(f"{SCOPE} {MONEY}")
    assert not authenticate(present(token), SCOPE).introspected
    assert issuer.introspections == 0
    assert authenticate(present(token), MONEY).introspected
    issuer.revoke(token)
    assert refuse(authenticate, present(token), MONEY).reason == "inactive"
    assert authenticate(present(token), SCOPE)


def test_hybrid_spends_no_call_on_a_token_that_is_not_sound(make, issuer, present):
    _, authenticate = make(mode="hybrid", money_scopes=[MONEY])
    assert refuse(authenticate, present("reference"), MONEY).error == "invalid_token"
    assert refuse(authenticate, present(issuer.token(SCOPE)), MONEY).status == 403
    assert issuer.introspections == 0


def test_an_outage_is_a_503_and_opens_the_breaker(make, issuer, present, caplog):
    caplog.set_level("INFO", "authz_verifier")
    _, authenticate = make(mode="introspection")
    token = issuer.token()
    authenticate(present(token))
    issuer.is_down = True
    refusals = [refuse(authenticate, present(token)) for _ in range(10)]
    assert {each.status for each in refusals} == {503}
    assert refusals[-1].reason == "introspection is failing"
    assert caplog.text.count("Tokens cannot be introspected: ") == 1
    issuer.is_down = False
    time.sleep(1.1)
    assert authenticate(present(token))
    assert "Tokens are introspected again." in caplog.text


def test_a_caller_cannot_open_the_breaker_by_tokens_that_the_server_refuses(make, issuer, present):
    _, authenticate = make(mode="introspection")
    for token in ["x" * 9_000, "+" * 3_000] * 3:
        assert refuse(authenticate, present(token), SCOPE).reason == "too long to introspect"
    issuer.introspection_refusal = (400, b'{"error": "invalid_token"}')
    for _ in range(6):
        assert refuse(authenticate, present("x" * 100), SCOPE).status == 401
    issuer.introspection_refusal = None
    assert authenticate(present(issuer.token(SCOPE)), SCOPE).introspected


@pytest.mark.parametrize("status", [400, 413, 414, 422, 431])
def test_a_proxy_that_answers_instead_of_the_server_makes_no_token_inactive(
    make, issuer, present, status
):
    verifier, authenticate = make(mode="introspection", introspection_cache_seconds=60)
    request = present(issuer.token(SCOPE))
    for body in (
        b"<html>No required SSL certificate was sent</html>",
        b'{"error": "invalid_request"}',
    ):
        issuer.introspection_refusal = (status, body)
        assert refuse(authenticate, request, SCOPE).status == 503
    issuer.introspection_refusal = (status, b'{"error": "invalid_token"}')
    assert refuse(authenticate, request, SCOPE).status == 401
    issuer.introspection_refusal = (status, b"{}")
    for _ in range(3):
        # A refused token does not count as a success: these are the third to fifth failures.
        assert refuse(authenticate, request, SCOPE).status == 503
    issuer.introspection_refusal = None
    assert refuse(authenticate, request, SCOPE).reason == "introspection is failing"
    counted = {
        each.labels.get("outcome"): each.value
        for each in verifier.metrics()
        if each.name == INTROSPECTIONS
    }
    assert counted == {"failure": 5, "refused": 1, "skipped": 1}
    time.sleep(1.1)
    assert authenticate(request, SCOPE).introspected


def test_a_request_on_a_connection_that_the_server_closed_is_sent_once_more(
    make, issuer, present, monkeypatch
):
    _, authenticate = make(mode="introspection")
    introspect, presented = issuer.introspect, []

    def close_first(token):
        presented.append(token)
        if len(presented) == 1:
            raise ConnectionAbortedError
        return introspect(token)

    monkeypatch.setattr(issuer, "introspect", close_first)
    assert authenticate(present(issuer.token(SCOPE)), SCOPE).introspected
    assert len(presented) == 2


@pytest.mark.parametrize("behaviour", ["redirects", "floods", "drips", "drips_headers", "lies"])
def test_a_hostile_introspection_endpoint_costs_a_503_in_bounded_time(
    make, issuer, present, hostile, behaviour
):
    document, endpoint = issuer.document, hostile(behaviour)
    issuer.document = lambda path: (document(path) or {}) | {"introspection_endpoint": endpoint}
    _, authenticate = make(mode="introspection", timeout_seconds=0.3)
    started = time.monotonic()
    assert refuse(authenticate, present(issuer.token())).status == 503
    assert time.monotonic() - started < 8


@pytest.mark.parametrize("active", [1, 0, "true", None, [], {}])
def test_a_response_without_a_boolean_active_is_a_503(make, issuer, present, active, monkeypatch):
    monkeypatch.setattr(issuer, "introspect", lambda _: {"active": active})
    _, authenticate = make(mode="introspection")
    refusal = refuse(authenticate, present(issuer.token()))
    assert (refusal.status, refusal.reason) == (503, "introspection: no member active")


def test_an_introspection_endpoint_with_a_name_that_no_host_can_have_costs_a_503(
    make, issuer, present
):
    document, endpoint = issuer.document, f"https://{'a' * 64}.example"
    issuer.document = lambda path: (document(path) or {}) | {"introspection_endpoint": endpoint}
    _, authenticate = make(mode="introspection")
    assert refuse(authenticate, present(issuer.token())).status == 503


def test_introspection_uses_the_proxies_of_the_environment(make, issuer, present, monkeypatch):
    """But not for the hosts that it excepts."""
    endpoint = {"introspection_endpoint": "http://127.0.0.1:1/introspect"}
    document, request = issuer.document, present(issuer.token(SCOPE))
    issuer.document = lambda url: (document(urlsplit(url).path) or {}) | endpoint
    monkeypatch.setenv("http_proxy", issuer.url)
    for excepted, reason in (("auth.example", "status 404"), ("127.0.0.1", "ConnectError")):
        monkeypatch.setenv("no_proxy", excepted)
        _, authenticate = make(mode="introspection")
        refusal = refuse(authenticate, request)
        assert (refusal.status, refusal.reason) == (503, f"introspection: {reason}")


def test_a_token_is_not_sent_to_a_server_with_an_unknown_certificate(make, issuer, present, tls):
    """It is, with a context that trusts the certificate."""
    document, request = issuer.document, present(issuer.token(SCOPE))
    with LocalIssuer() as secure:
        secure.introspect = issuer.introspect
        secure.serve_tls(tls.server)
        endpoint = {"introspection_endpoint": f"{secure.url}/introspect"}
        issuer.document = lambda path: (document(path) or {}) | endpoint
        refusal = refuse(make(mode="introspection")[1], request)
        assert (refusal.status, refusal.reason) == (503, "introspection: ConnectError")
        assert issuer.introspections == 0
        _, authenticate = make(mode="introspection", ssl_context=tls.client)
        assert authenticate(request, SCOPE).introspected


@pytest.mark.parametrize(
    ("changed", "reason"), [("/moved", "status 404"), (" malformed", "InvalidURL")]
)
def test_introspection_follows_the_endpoint_of_the_metadata(make, issuer, present, changed, reason):
    verifier, authenticate = make(mode="introspection", timeout_seconds=30)
    document, request = issuer.document, present(issuer.token(SCOPE))
    assert authenticate(request).introspected
    endpoint = {"introspection_endpoint": f"{issuer.url}{changed}"}
    issuer.document = lambda path: (document(path) or {}) | endpoint
    verifier.drop_caches()
    refusal = refuse(authenticate_often, authenticate, request)
    assert (refusal.status, refusal.reason) == (503, f"introspection: {reason}")


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, "invalid_client"), (400, "unauthorized_client"), (401, "invalid_token")],
)
def test_credentials_that_the_server_refuses_are_a_failure(status, error):
    introspection = Introspection("mapper", "wrong", 0, time.time, Counters())
    body = json.dumps({"error": error}).encode()
    assert refuse(introspection.read, "token", status, body, 0).status == 503


def test_asyncio_accepts_tokens_with_one_fetch(issuer, present):
    async def run():
        verifier = AsyncVerifier(issuer.url, DEFAULT_AUDIENCE)
        request = present(issuer.token(SCOPE))
        await asyncio.gather(*(verifier.authenticate(request, SCOPE) for _ in range(50)))

    asyncio.run(run())
    assert issuer.fetches == 1


def test_a_forked_process_does_not_share_the_connections(issuer, present, monkeypatch):
    with Verifier(issuer.url, DEFAULT_AUDIENCE, mode="introspection", **CREDENTIALS) as verifier:
        verifier.authenticate(present(issuer.token()))
        _, parents = verifier._poster  # noqa: SLF001 - whether it is shared cannot be seen outside
        monkeypatch.setattr("os.getpid", lambda: 1)
        verifier.authenticate(present(issuer.token()))
        assert verifier._poster[1] is not parents  # noqa: SLF001
        parents.close()
