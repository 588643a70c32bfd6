"""Which security events have the issuer's keys fetched again, and when."""

import threading
import time

import pytest

from authz_verifier import Verifier
from authz_verifier.testing import DEFAULT_AUDIENCE

SCOPE = "mapper/link"
TYPE = "application/secevent+jwt"
OAUTH = "https://schemas.openid.net/secevent/oauth/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"
CHANGE = "https://schemas.openid.net/secevent/caep/event-type/credential-change"
WITHOUT_KEYS = [
    {f"{OAUTH}token-revoked": {"client_id": "payer"}},
    {f"{OAUTH}tokens-revoked": {"kind": "client", "subject": "payer"}},
    {f"{OAUTH}tokens-revoked": {"kind": "scope", "subject": SCOPE}},
    {f"{RISC}account-disabled": {}},
    {f"{RISC}account-enabled": {}},
    {f"{RISC}account-purged": {}},
    {CHANGE: {"credential_type": "client_secret", "change_type": "revoke"}},
    {"urn:authz-server:secevent:stopped": {"kind": "client", "subject": "payer"}},
    {"urn:authz-server:secevent:resumed": {"kind": "client", "subject": "payer"}},
    {f"{OAUTH}token-revoked": None},
]
OF_KEYS = [
    {f"{RISC}credential-compromise": {"credential_type": "signing_key", "kid": "a"}},
    {f"{OAUTH}tokens-revoked": {"kind": "key", "subject": "a"}},
    {f"{OAUTH}tokens-revoked": {"kind": "all", "subject": ""}},
    {f"{OAUTH}tokens-revoked": "rubbish"},
    {CHANGE: {"credential_type": "x509"}},
    {"https://other.example/event": {}},
    {f"{OAUTH}token-revoked": {}, f"{RISC}credential-compromise": {}},
]


def test_events_that_leave_the_keys_alone_cause_no_fetch(issuer, present):
    with Verifier(issuer.url, DEFAULT_AUDIENCE) as verifier:
        request = present(issuer.token(SCOPE))
        verifier.authenticate(request, SCOPE)
        for events in WITHOUT_KEYS:
            assert verifier.receive_event(issuer.event(events=events).encode(), TYPE).status == 202
            verifier.authenticate(request, SCOPE)
        time.sleep(0.3)
        assert verifier.events.received == len(WITHOUT_KEYS)
    assert issuer.fetches == 1


@pytest.mark.parametrize("events", OF_KEYS, ids=str)
def test_an_event_that_may_concern_keys_fetches_them_without_a_request(issuer, events, wait_until):
    with Verifier(issuer.url, DEFAULT_AUDIENCE) as verifier:
        assert verifier.receive_event(issuer.event(events=events).encode(), TYPE).status == 202
        wait_until(lambda: issuer.fetches >= 3)
        time.sleep(0.3)
    assert issuer.fetches == 3, "one to verify it, one for the keys, one when they are settled"


def test_keys_that_a_process_of_the_server_withdraws_after_the_event_are_not_kept(
    issuer, present, wait_until, is_accepted
):
    """The process that answers the fetch may read a change after the one that sends the event."""
    with Verifier(issuer.url, DEFAULT_AUDIENCE) as verifier:
        token = present(issuer.token(SCOPE))
        verifier.authenticate(token, SCOPE)
        verifier.receive_event(issuer.event(events=OF_KEYS[0]).encode(), TYPE)
        wait_until(lambda: issuer.fetches >= 2)
        issuer.rotate(keep=False)
        wait_until(lambda: not is_accepted(verifier, token))


def test_keys_whose_fetch_began_before_they_expired_are_not_kept(
    issuer, present, wait_until, is_accepted
):
    """A withdrawn one among them would be accepted for their `max-age`."""
    document, begun, withdrawn = issuer.document, threading.Event(), threading.Event()

    def slowly(path):
        found = document(path)
        if path == "/jwks" and issuer.fetches == 2:
            begun.set()
            withdrawn.wait(30)
        return found

    issuer.document = slowly
    with Verifier(issuer.url, DEFAULT_AUDIENCE, timeout_seconds=60) as verifier:
        token = present(issuer.token(SCOPE))
        verifier.authenticate(token, SCOPE)
        verifier.drop_caches()
        verifier.authenticate(token, SCOPE)
        assert begun.wait(30)
        issuer.rotate(keep=False)
        verifier.drop_caches()
        withdrawn.set()
        wait_until(lambda: not is_accepted(verifier, token))


@pytest.mark.parametrize("calls", [1, 3])
def test_a_fetch_during_which_the_keys_expire_is_followed_by_another(issuer, calls):
    document = issuer.document
    with Verifier(issuer.url, DEFAULT_AUDIENCE) as verifier:

        def expire_first(path):
            found = document(path)
            if path == "/jwks" and issuer.fetches == 1:
                for _ in range(calls):
                    verifier.drop_caches()
                issuer.rotate(keep=False)
            return found

        issuer.document = expire_first
        event = issuer.event(events=WITHOUT_KEYS[0], key=issuer.keys[0]).encode()
        assert verifier.receive_event(event, TYPE).status == 400, "its key is withdrawn"
    assert issuer.fetches == 3, "the last one for the unknown key"
