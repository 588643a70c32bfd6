"""Keys: fetched once, rotated, kept through outages, and no fetch for each unknown key."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from authz_verifier import Refusal, Verifier
from authz_verifier.fetching import DocumentFetcher, FetchError, StatusListFetcher
from authz_verifier.metrics import KEYS_LEFT
from authz_verifier.signing import SigningKey
from authz_verifier.testing import DEFAULT_AUDIENCE, LocalIssuer


def refuse(verifier, request) -> Refusal:
    with pytest.raises(Refusal) as caught:
        verifier.authenticate(request)
    return caught.value


def await_logged(caplog):
    deadline = time.monotonic() + 60
    while "cannot be fetched" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def authenticate_often(verifier, request):
    for _ in range(1_000):
        verifier.authenticate(request)
        time.sleep(0.01)


def test_keys_are_fetched_once_for_many_threads(verifier, issuer, present):
    request = present(issuer.token())
    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(lambda _: verifier.authenticate(request), range(100)))
    assert issuer.fetches == 1


def test_a_new_key_is_accepted_at_once_and_a_withdrawn_one_refused(verifier, issuer, present):
    old = present(issuer.token())
    verifier.authenticate(old)
    issuer.rotate(keep=False)
    assert verifier.authenticate(present(issuer.token()))
    assert refuse(verifier, old).error == "invalid_token"
    assert issuer.fetches == 2


def test_a_thousand_unknown_keys_make_one_fetch(verifier, issuer, present):
    verifier.authenticate(present(issuer.token()))
    forger = SigningKey()
    requests = [present(issuer.token(key=forger, header={"kid": f"k{n}"})) for n in range(1_000)]
    with ThreadPoolExecutor(20) as pool:
        refusals = list(pool.map(lambda request: refuse(verifier, request), requests))
    assert {each.reason for each in refusals} == {"unknown key"}
    assert issuer.fetches == 2
    assert verifier.authenticate(present(issuer.token()))


def test_keys_are_refreshed_in_the_background(issuer, present, monkeypatch):
    monkeypatch.setattr("authz_verifier.fetching.MINIMUM_FRESH_SECONDS", 0)
    monkeypatch.setattr("authz_verifier.key_cache.MINIMUM_PAUSE_SECONDS", 0)
    issuer.maximum_age_seconds = 0
    with Verifier(issuer.url, DEFAULT_AUDIENCE) as verifier:
        old = present(issuer.token())
        verifier.authenticate(old)
        issuer.rotate(keep=False)
        with pytest.raises(Refusal, match="unknown key"):
            authenticate_often(verifier, old)


@pytest.mark.parametrize("failure", ["down", "wiped", "other issuer"])
def test_a_failure_leaves_the_keys_as_they_are(issuer, present, failure, monkeypatch, caplog):
    """It is logged, and a key that is new afterwards is accepted without help."""
    monkeypatch.setattr("authz_verifier.key_cache.MINIMUM_PAUSE_SECONDS", 0.05)
    request, url, keys = present(issuer.token()), issuer.url, issuer.keys
    with Verifier(issuer.url, DEFAULT_AUDIENCE) as verifier:
        verifier.authenticate(request)
        if failure == "down":
            issuer.is_down = True
        elif failure == "wiped":
            issuer.keys = []
        else:
            issuer.url += "/other"
        verifier.drop_caches()
        for _ in range(20):
            assert verifier.authenticate(request)
            time.sleep(0.01)
        await_logged(caplog)
        issuer.is_down, issuer.keys, issuer.url = False, keys, url
        issuer.rotate()
        renewed, deadline = present(issuer.token()), time.monotonic() + 60
        while True:
            try:
                assert verifier.authenticate(renewed)
                break
            except Refusal:
                assert time.monotonic() < deadline
                time.sleep(0.05)


def test_keys_are_not_kept_for_ever(issuer, present, monkeypatch):
    monkeypatch.setattr("authz_verifier.fetching.MINIMUM_FRESH_SECONDS", 0)
    issuer.maximum_age_seconds = 0
    with Verifier(issuer.url, DEFAULT_AUDIENCE, keys_kept_seconds=1) as verifier:
        request = present(issuer.token())
        assert verifier.authenticate(request)
        issuer.is_down = True
        time.sleep(1.2)
        refusal = refuse(verifier, request)
    assert (refusal.status, refusal.retry_after_seconds) == (503, 5)


def test_without_keys_the_answer_is_a_503_at_once_and_the_api_recovers_unaided(
    issuer, present, monkeypatch
):
    monkeypatch.setattr("authz_verifier.key_cache.MINIMUM_PAUSE_SECONDS", 2)
    with Verifier(issuer.url, DEFAULT_AUDIENCE) as verifier:
        issuer.is_down = True
        request = present(issuer.token())
        assert refuse(verifier, request).status == 503
        started = time.monotonic()
        assert refuse(verifier, request).status == 503
        assert time.monotonic() - started < 1.5
        issuer.is_down = False
        time.sleep(2.1)
        assert verifier.authenticate(request)


def test_a_server_with_an_unknown_certificate_is_not_asked(present, tls):
    with LocalIssuer() as issuer:
        issuer.serve_tls(tls.server)
        request = present(issuer.token())
        with Verifier(issuer.url, DEFAULT_AUDIENCE) as verifier:
            assert refuse(verifier, request).status == 503
        with Verifier(issuer.url, DEFAULT_AUDIENCE, ssl_context=tls.client) as verifier:
            assert verifier.authenticate(request)


@pytest.mark.parametrize("behaviour", ["redirects", "floods", "drips", "lies"])
def test_a_hostile_issuer_costs_a_503_in_bounded_time(issuer, present, hostile, behaviour, caplog):
    with Verifier(hostile(behaviour), DEFAULT_AUDIENCE, timeout_seconds=0.3) as verifier:
        started = time.monotonic()
        assert refuse(verifier, present(issuer.token())).status == 503
        assert time.monotonic() - started < 8
        await_logged(caplog)


def test_the_time_in_a_cache_counts(issuer, present):
    """Otherwise a revoked key would be accepted for twice its `max-age`."""
    issuer.age_seconds = 290
    with Verifier(issuer.url, DEFAULT_AUDIENCE, keys_kept_seconds=1_000) as verifier:
        verifier.authenticate(present(issuer.token()))
        (left,) = (each.value for each in verifier.metrics() if each.name == KEYS_LEFT)
    assert 900 < left <= 1_010


def test_a_page_in_the_place_of_the_metadata_is_passed_over(issuer, present):
    """The metadata of OpenID Connect Discovery is used (RFC 8414, 5)."""
    document, places = issuer.document, ("oauth-authorization-server", "openid-configuration")
    oauth, openid = (f"/.well-known/{name}" for name in places)
    issuer.document = lambda path: (
        {} if path == oauth else document(oauth if path == openid else path)
    )
    with Verifier(issuer.url, DEFAULT_AUDIENCE) as verifier:
        assert verifier.authenticate(present(issuer.token()))


@pytest.mark.parametrize(
    "fetch",
    [
        lambda url: DocumentFetcher(url, 0.3).fetch(None),
        lambda url: StatusListFetcher(0.3).fetch(url, "", False),  # noqa: FBT003 - a value
    ],
    ids=["keys", "status list"],
)
def test_a_fetch_ends_in_time_although_the_headers_arrive_slowly(hostile, fetch):
    url, started = hostile("drips_headers"), time.monotonic()
    with pytest.raises(FetchError, match="Timeout"):
        fetch(url)
    assert time.monotonic() - started < 8
