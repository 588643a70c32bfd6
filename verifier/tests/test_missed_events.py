"""Security events that another process of the API acknowledged before this one took them."""

import pytest

from authz_verifier import EventPoller, Refusal, Verifier
from authz_verifier.testing import DEFAULT_AUDIENCE

SCOPE = "mapper/link"


@pytest.fixture
def caching(issuer):
    settings = {"client_id": "mapper", "client_secret": "secret", "mode": "introspection"}
    with Verifier(
        issuer.url, DEFAULT_AUDIENCE, introspection_cache_seconds=300, **settings
    ) as made:
        yield made


def test_an_event_during_a_failure_has_its_effect(
    issuer, caching, present, wait_until, is_accepted
):
    request = present(token := issuer.token(SCOPE))
    with EventPoller(caching) as poller:
        wait_until(lambda: len(issuer.polls) > 1)
        assert caching.authenticate(request)
        issuer.is_down = True
        wait_until(lambda: poller.failures)
        issuer.revoke(token)
        assert caching.authenticate(request)
        issuer.is_down = False
        wait_until(lambda: not is_accepted(caching, request))
    assert caching.events.received == 0


def test_an_event_between_two_polls_has_its_effect(
    issuer, caching, present, monkeypatch, is_accepted
):
    request, poller = present(token := issuer.token(SCOPE)), EventPoller(caching)
    with caching.new_client(5) as client:
        for longest, is_late in ((60, True), (60, False), (0, True)):
            monkeypatch.setattr("authz_verifier.polling.FULL_PAGE_SECONDS", longest)
            assert caching.authenticate(request)
            issuer.revoke(token)
            poller.poll(client)
            assert issuer.polls[-1]["returnImmediately"] is is_late
            assert is_accepted(caching, request) is not is_late
            token = issuer.token(SCOPE)
            request = present(token)


def test_an_event_that_could_not_be_verified_in_time_has_its_effect(
    issuer, caching, present, monkeypatch
):
    request = present(token := issuer.token(SCOPE))
    poller = EventPoller(caching, f"{issuer.url}/security-events")
    monkeypatch.setattr("authz_verifier.polling.FULL_PAGE_SECONDS", 60)
    with caching.new_client(5) as client:
        poller.poll(client)
        assert caching.authenticate(request)
        issuer.revoke(token)
        issuer.announce(issuer.event())
        monkeypatch.setattr(issuer, "document", lambda _: None)
        for _ in range(2):
            assert poller.poll(client) == 0
            assert caching.authenticate(request)
        issuer.events.clear()
        assert poller.poll(client) == 0
    with pytest.raises(Refusal, match="inactive"):
        caching.authenticate(request)
