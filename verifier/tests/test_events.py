"""Security events: pushed and polled, forged, replayed, reordered; and the caches they drop."""

import asyncio
import json
import logging
import time
from io import BytesIO

import django
import flask
import pytest
from django.conf import settings
from django.test import RequestFactory
from starlette.applications import Starlette
from starlette.testclient import TestClient
from werkzeug.test import Client

import authz_verifier.asgi
import authz_verifier.flask
import authz_verifier.starlette
import authz_verifier.wsgi
from authz_verifier import AsyncVerifier, ConfigurationError, EventPoller, Refusal, Verifier
from authz_verifier.django import event_urls
from authz_verifier.signing import SigningKey
from authz_verifier.testing import DEFAULT_AUDIENCE

SCOPE = "mapper/link"
TYPE = "application/secevent+jwt"
CREDENTIALS = {"client_id": "mapper", "client_secret": "secret"}
MODES = {
    "status": {"mode": "status"},
    "introspection": {
        "mode": "introspection",
        "introspection_cache_seconds": 60,
        **CREDENTIALS,
    },
    "hybrid": {
        "mode": "hybrid",
        "money_scopes": [SCOPE],
        "introspection_cache_seconds": 60,
        **CREDENTIALS,
    },
}


@pytest.fixture(params=MODES)
def verifier(request, issuer):
    with Verifier(issuer.url, DEFAULT_AUDIENCE, **MODES[request.param]) as made:
        yield made


def test_an_event_ends_the_acceptance_of_a_revoked_token(verifier, issuer, present):
    """202 without a body (RFC 8935, 2.2); a second time it has no effect."""
    token = issuer.token(SCOPE)
    assert verifier.authenticate(present(token), SCOPE)
    issuer.revoke(token)
    assert verifier.authenticate(present(token), SCOPE)
    event = issuer.event().encode()
    for _ in range(2):
        answer = verifier.receive_event(event, f"{TYPE}; charset=utf-8")
        assert (answer.status, answer.body) == (202, b"")
    with pytest.raises(Refusal):
        verifier.authenticate(present(token), SCOPE)
    assert verifier.events.received == 1


FORGED = {
    "foreign key": ({"key": SigningKey(kid="other")}, "invalid_key"),
    "typ of a token": ({"typ": "at+jwt"}, "invalid_request"),
    "typ JWT": ({"typ": "JWT"}, "invalid_request"),
    "other issuer": ({"iss": "https://other.example"}, "invalid_issuer"),
    "other audience": ({"aud": "https://other.example"}, "invalid_audience"),
    "no audience": ({"aud": None}, "invalid_audience"),
    "no time": ({"iat": None}, "invalid_request"),
    "a time to come": ({"iat": int(time.time()) + 3_600}, "invalid_request"),
    "expired": ({"exp": 1}, "invalid_request"),
    "no id": ({"jti": None}, "invalid_request"),
    "a long id": ({"jti": "x" * 300}, "invalid_request"),
    "no events": ({"events": None}, "invalid_request"),
    "empty events": ({"events": {}}, "invalid_request"),
    "events in a list": ({"events": ["x"]}, "invalid_request"),
}


@pytest.mark.parametrize(("changes", "code"), FORGED.values(), ids=FORGED.keys())
def test_a_forged_event_is_refused_and_drops_nothing(issuer, changes, code, caplog):
    """400 with an error of RFC 8935, 2.4, and a line in the log."""
    with Verifier(issuer.url, DEFAULT_AUDIENCE) as verifier:
        answer = verifier.receive_event(issuer.event(**changes).encode(), TYPE)
    assert answer.status == 400
    assert json.loads(answer.body)["err"] == code
    assert f"A pushed security event is refused: {code}" in caplog.text
    assert ("Content-Language", "en") in answer.headers
    assert verifier.events.received == 0


def test_a_signature_that_does_not_fit_is_refused(issuer):
    """Also when the key's id is known; and what is no token at all."""
    with Verifier(issuer.url, DEFAULT_AUDIENCE) as verifier:
        forged = issuer.event(key=SigningKey(kid=issuer.keys[0].kid))
        cases = [
            (forged.encode(), TYPE),
            (issuer.token(SCOPE).encode(), TYPE),
            (b"", TYPE),
            (b"\xff\xfe", TYPE),
            (b"a.b.c", TYPE),
            (b"x" * 100_000, TYPE),
            (issuer.event().encode(), "application/json"),
            (issuer.event().encode(), ""),
        ]
        for body, content_type in cases:
            assert verifier.receive_event(body, content_type).status == 400
        assert verifier.events.received == 0


def test_an_event_that_cannot_be_verified_is_to_be_sent_again(issuer, caplog):
    """503 while there are no keys; the transmitter then tries again."""
    issuer.is_down = True
    with Verifier(issuer.url, DEFAULT_AUDIENCE, timeout_seconds=1) as verifier:
        answer = verifier.receive_event(issuer.event().encode(), TYPE)
        assert answer.status == 503
        assert "A pushed security event cannot be verified" in caplog.text
        issuer.is_down = False
        verifier.drop_caches()
        assert verifier.receive_event(issuer.event().encode(), TYPE).status == 202


def test_an_event_of_a_new_key_is_to_be_sent_again_until_the_keys_are_fetched(issuer):
    """A forged event a moment ago, and an outage, postpone the fetch: 400 would lose the event."""
    with Verifier(issuer.url, DEFAULT_AUDIENCE) as verifier:
        forged = issuer.event(key=SigningKey(kid="other")).encode()
        assert verifier.receive_event(forged, TYPE).status == 400
        issuer.rotate()
        event = issuer.event().encode()
        assert verifier.receive_event(event, TYPE).status == 503
        issuer.is_down = True
        verifier.drop_caches()
        assert verifier.receive_event(event, TYPE).status == 503
        issuer.is_down = False
        verifier.drop_caches()
        assert verifier.receive_event(event, TYPE).status == 202


def test_events_out_of_order_have_the_same_effect(verifier, issuer):
    """An event of earlier is an event."""
    now = int(time.time())
    for ago in (5, 60, 0, 3_600):
        answer = verifier.receive_event(issuer.event(iat=now - ago).encode(), TYPE)
        assert answer.status == 202
    assert verifier.events.received == 4


def poll_until(condition, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("kind", [Verifier, AsyncVerifier])
def test_a_poller_takes_events_and_acknowledges_them(issuer, kind):
    """A forged one is reported as an error (RFC 8936, 2.6)."""
    verifier = kind(issuer.url, DEFAULT_AUDIENCE, **CREDENTIALS)
    with EventPoller(verifier, acknowledge_after_seconds=0.2):
        assert poll_until(lambda: issuer.polls)
        issuer.announce(issuer.event())
        issuer.announce(issuer.event(aud="https://other.example"))
        assert poll_until(lambda: not issuer.events)
    assert verifier.events.received == 1
    errors = [each["setErrs"] for each in issuer.polls if "setErrs" in each]
    assert [next(iter(each.values()))["err"] for each in errors] == ["invalid_audience"]
    assert issuer.polls[0] == {"maxEvents": 100, "returnImmediately": True}
    assert {"maxEvents": 100, "returnImmediately": False} in issuer.polls
    for poll, language in zip(issuer.polls, issuer.poll_languages, strict=False):
        assert language == ("en" if "setErrs" in poll else None)


def test_every_process_that_polls_a_stream_gets_an_event(issuer):
    """None acknowledges it before the others had the time to take it."""
    verifiers = [Verifier(issuer.url, DEFAULT_AUDIENCE, **CREDENTIALS) for _ in range(3)]
    pollers = [EventPoller(each, acknowledge_after_seconds=1).start() for each in verifiers]
    issuer.announce(issuer.event())
    assert poll_until(lambda: not issuer.events)
    assert [each.events.received for each in verifiers] == [1, 1, 1]
    for poller in pollers:
        poller.stop()


def test_a_revocation_behind_a_full_response_is_noticed_in_a_second(issuer, present, is_accepted):
    """Events that were taken wait for other processes, and hold up those behind them."""
    verifier = Verifier(issuer.url, DEFAULT_AUDIENCE, mode="status", **CREDENTIALS)
    token = issuer.token(SCOPE)
    for _ in range(250):
        issuer.announce(issuer.event())
    with EventPoller(verifier):
        assert poll_until(lambda: len(issuer.polls) > 1)
        assert poll_until(lambda: is_accepted(verifier, present(token)))
        issuer.revoke(token)
        issuer.announce(issuer.event())
        began = time.monotonic()
        assert poll_until(lambda: not is_accepted(verifier, present(token)))
        took = time.monotonic() - began
        assert poll_until(lambda: not issuer.events)
    assert took < 5
    assert verifier.events.received == 251


def test_a_poller_goes_on_after_an_outage(issuer, caplog):
    """The failure is logged once; polls follow after growing pauses."""
    caplog.set_level(logging.INFO)
    issuer.is_down = True
    verifier = Verifier(issuer.url, DEFAULT_AUDIENCE, timeout_seconds=1, **CREDENTIALS)
    with EventPoller(verifier, f"{issuer.url}/security-events") as poller:
        assert poll_until(lambda: poller.failures)
        issuer.is_down = False
        issuer.announce(issuer.event())
        assert poll_until(lambda: verifier.events.received)
        assert poll_until(lambda: "polled again" in caplog.text)
    assert caplog.text.count("cannot be polled") == 1


def test_a_poller_pauses_while_an_event_cannot_be_verified(issuer, monkeypatch):
    """The event comes with each response; it is taken when there are keys again."""
    verifier = Verifier(issuer.url, DEFAULT_AUDIENCE, timeout_seconds=1, **CREDENTIALS)
    issuer.announce(issuer.event())
    with monkeypatch.context() as patch:
        patch.setattr(issuer, "document", lambda _: None)
        started = time.monotonic()
        poller = EventPoller(verifier, f"{issuer.url}/security-events").start()
        assert poll_until(lambda: len(issuer.polls) >= 4)
        assert time.monotonic() - started > 0.7  # three pauses
    verifier.drop_caches()
    assert poll_until(lambda: verifier.events.received)
    poller.stop()


def test_a_poller_needs_credentials(issuer):
    with pytest.raises(ConfigurationError, match="client_secret"):
        EventPoller(Verifier(issuer.url, DEFAULT_AUDIENCE))


def flask_skin(issuer):
    app = flask.Flask("api")
    verifier = Verifier(issuer.url, DEFAULT_AUDIENCE)
    authz_verifier.flask.protect(app, verifier)
    authz_verifier.flask.receive_events(app)
    return verifier, Client(app)


def wsgi_skin(issuer):
    verifier = Verifier(issuer.url, DEFAULT_AUDIENCE)
    return verifier, Client(authz_verifier.wsgi.event_receiver(verifier))


def starlette_skin(issuer):
    app = Starlette()
    verifier = AsyncVerifier(issuer.url, DEFAULT_AUDIENCE)
    authz_verifier.starlette.protect(app, verifier)
    authz_verifier.starlette.receive_events(app)
    return verifier, TestClient(app)


def asgi_skin(issuer):
    verifier = AsyncVerifier(issuer.url, DEFAULT_AUDIENCE)
    return verifier, TestClient(authz_verifier.asgi.event_receiver(verifier))


@pytest.mark.parametrize("skin", [flask_skin, wsgi_skin, starlette_skin, asgi_skin])
def test_each_skin_receives_events(issuer, skin):
    """202, 400 and 405; a body above the limit is refused unread."""
    verifier, client = skin(issuer)
    path, headers = "/security-events", {"Content-Type": TYPE}

    def post(body: bytes) -> int:
        if isinstance(client, TestClient):
            return client.post(path, content=body, headers=headers).status_code
        return client.post(path, data=body, headers=headers).status_code

    assert post(issuer.event().encode()) == 202
    assert post(issuer.event(iss="https://other.example").encode()) == 400
    assert post(b"x" * 1_000_000) == 400
    assert client.get(path).status_code == 405
    assert verifier.events.received == 1


def test_a_body_in_chunks_is_read_where_the_server_ends_it():
    """Its length is not stated; without an end, reading could wait for ever."""
    for terminated in (True, False):
        environ = {"wsgi.input": BytesIO(b"x" * 100_000), "wsgi.input_terminated": terminated}
        assert len(authz_verifier.wsgi.read_event(environ)) == (65_537 if terminated else 0)


def test_django_receives_events(issuer):
    """Without a CSRF token."""
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"])
        django.setup()
    settings.AUTHZ_VERIFIER = verifier = Verifier(issuer.url, DEFAULT_AUDIENCE)
    (pattern,) = event_urls()
    make = RequestFactory(enforce_csrf_checks=True)
    statuses = [
        pattern.callback(make.post("/security-events", body, content_type=TYPE)).status_code
        for body in (issuer.event(), issuer.event(iss="https://other.example"))
    ]
    assert statuses == [202, 400]
    assert pattern.callback(make.get("/security-events")).status_code == 405
    assert verifier.events.received == 1


def test_an_event_during_a_fetch_is_not_lost(issuer, present):
    """A list that was under way while the event came is not used afterwards."""

    async def run():
        verifier = AsyncVerifier(issuer.url, DEFAULT_AUDIENCE, mode="status")
        token = issuer.token(SCOPE)
        signed = issuer.signed_list

        def slowly() -> str:
            found = signed()
            if issuer.list_fetches == 1:
                issuer.revoke(token)
                verifier.receive_event(issuer.event().encode(), TYPE)
            return found

        issuer.signed_list = slowly
        with pytest.raises(Refusal, match="revoked"):
            await verifier.authenticate(present(token), SCOPE)

    asyncio.run(run())
    assert issuer.list_fetches == 2
