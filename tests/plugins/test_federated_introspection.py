"""Tokens of foreign issuers at introspection: by their keys, or asked at their own endpoint."""

import json
import socket
import threading
import time

import pytest

from authz_server.plugin_api import PluginServices
from plugins import federated_introspection
from support.issuers import Issuers
from support.scripted_server import ScriptedServer, answer_with
from support.settings_file import write_secret
from support.stage import INACTIVE, ApplicationFixture

AUDIENCE = "https://basic-jwt.example"
SCOPES = ["basic-jwt/read", "post-jwt/*"]
CLAIMS = {"aud": AUDIENCE, "scope": "basic-jwt/read basic-jwt/write post-jwt/read", "jti": None}


class Endpoint:
    """The introspection endpoint of a foreign issuer; `answer` is what it gives."""

    def __init__(self):
        self.server = ScriptedServer(self._respond)
        self.answer = {}
        self.script = None

    def _respond(self, connection: socket.socket, request: bytes) -> bool:
        script = self.script or answer_with(json.dumps(self.answer).encode())
        script(connection, request)
        return False


@pytest.fixture(scope="module")
def endpoint():
    endpoint = Endpoint()
    with endpoint.server:
        yield endpoint


@pytest.fixture(scope="module")
def issuers(tmp_path_factory):
    with Issuers(tmp_path_factory.mktemp("issuers")) as issuers:
        yield issuers


@pytest.fixture(scope="module")
def site(module_database_url, tmp_path_factory, issuers, endpoint):
    folder = tmp_path_factory.mktemp("site")
    write_secret(folder / "partner-secret", "the secret at the partner")
    tables = {
        "provider": {"issuer": issuers.provider, "scopes": SCOPES},
        "partner": {
            "issuer": "https://partner.example",
            "scopes": SCOPES,
            "introspection_endpoint": f"{endpoint.server.address}/introspect",
            "client_id": "us",
            "client_secret": {"file": "partner-secret"},
            "token_prefix": "partner_",
        },
    }
    settings = issuers.settings()
    settings["issuers"] = {"provider": settings["issuers"]["provider"]}
    site = ApplicationFixture(
        folder,
        module_database_url,
        plugins={
            "enabled": ["federated_introspection"],
            "settings": {"federated_introspection": {"issuers": tables}},
        },
        **settings,
    )
    issuers.clock = site.clock
    yield site
    site.close()


@pytest.fixture
def answering(site, endpoint):
    """An endpoint that has not failed and answers with an active token of the partner."""
    endpoint.script = None
    endpoint.answer = active(site)
    deadline = time.monotonic() + 10
    while refusal(site, "partner_warm") != (200, None):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    endpoint.server.requests.clear()
    return endpoint


@pytest.fixture
def standing(answering, monkeypatch):
    """The endpoint, while the plugin's `seconds` stand still: a machine may be slow meanwhile."""
    answering.seconds = time.monotonic()
    monkeypatch.setattr(federated_introspection, "monotonic", lambda: answering.seconds)
    return answering


@pytest.fixture
def failures(monkeypatch):
    """The failures that the plugin reports to the metrics."""
    reported = []
    report = lambda _, *failure: reported.append(failure)  # noqa: E731 - one expression
    monkeypatch.setattr(PluginServices, "report_failure", report)
    return reported


def active(site, **changes):
    answer = {
        "active": True,
        "iss": "https://partner.example",
        "sub": "their-client",
        "client_id": "their-client",
        "exp": int(site.clock().timestamp()) + 600,
        "sender_id": "us",
        **CLAIMS,
    }
    return {name: value for name, value in (answer | changes).items() if value is not None}


def refusal(site, token):
    answer = site.post("introspect", {"token": token}, site.callers["basic-jwt"])
    return answer.status_code, answer.get_json().get("error")


# ------------------------------------------------------------------------------------ by keys


def test_a_token_verified_by_its_issuer_s_keys_is_seen_by_its_audience(site, issuers):
    token = issuers.provider_signer("their-client").assertion(**CLAIMS)
    seen = site.introspect(token)
    assert seen == {
        "active": True,
        "scope": "basic-jwt/read",
        "iss": issuers.provider,
        "sub": "their-client",
        "aud": AUDIENCE,
        "exp": seen["exp"],
        "iat": seen["iat"],
        "token_type": "Bearer",
    }
    assert site.introspect(token, "post-jwt") == INACTIVE
    assert site.introspect(token, "client-basic") == INACTIVE
    several = issuers.provider_signer("x").assertion(
        **CLAIMS | {"aud": [AUDIENCE, "https://o.example"]}
    )
    assert site.introspect(several)["scope"] == "basic-jwt/read"


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "https://other.example"},
        {"aud": None},
        {"scope": "basic-jwt/write"},
        {"scope": "unknown/scope"},
        {"scope": None},
        {"scope": ["basic-jwt/read"]},
        {"sub": "client-basic"},
        {"client_id": "client-basic"},
        {"iss": "https://authz.example"},
        {"iss": "https://unregistered.example"},
        {"exp": 1},
        {"exp": "soon"},
        {"exp": None},
    ],
    ids=str,
)
def test_a_token_against_the_rules_is_inactive(site, issuers, changes):
    token = issuers.provider_signer("their-client").assertion(**CLAIMS | changes)
    assert site.introspect(token) == INACTIVE


def test_a_forged_token_is_inactive(site, issuers):
    token = issuers.provider_signer("their-client").assertion(**CLAIMS)
    head, payload, signature = token.split(".")
    forged = f"{head}.{payload}.{signature[:-6]}AAAAAA"
    assert [site.introspect(each) for each in (forged, f"{head}.{payload}.")] == [INACTIVE] * 2


def test_a_rotated_key_is_found_and_a_thousand_unknown_ones_make_one_fetch(site, issuers):
    issuers.publish("rotated")
    try:
        time.sleep(1.1)  # outbound.minimum_cache_seconds
        signer = issuers.provider_signer("their-client")
        assert site.introspect(signer.assertion({"kid": "rotated"}, **CLAIMS))["active"]
        time.sleep(1.1)
        fetched = len(issuers.fetched)
        tokens = [
            signer.assertion({"kid": f"unknown-{number}"}, **CLAIMS) for number in range(1_000)
        ]
        caller = site.callers["basic-jwt"]
        began = time.monotonic()
        for at in range(0, 1_000, 50):
            sent = "&".join(f"token={token}" for token in tokens[at : at + 50])
            answer = site.client.post(
                "/oauth2/introspect/batch",
                data=sent,
                headers=caller.headers() | {"Content-Type": "application/x-www-form-urlencoded"},
            )
            assert answer.get_json()["responses"] == [INACTIVE] * 50
        seconds = time.monotonic() - began
        assert len(issuers.fetched) - fetched <= 1 + int(seconds)
    finally:
        issuers.publish()
        time.sleep(1.1)


def test_an_issuer_that_wipes_its_keys_has_no_active_token_until_it_publishes_one(site, issuers):
    token = issuers.provider_signer("their-client").assertion(**CLAIMS)
    assert site.introspect(token)["active"]
    issuers.wipe()
    try:
        time.sleep(1.1)
        unknown = issuers.provider_signer("x").assertion({"kid": "unknown"}, **CLAIMS)
        assert [site.introspect(each) for each in (unknown, token)] == [INACTIVE] * 2
    finally:
        issuers.publish()
        time.sleep(1.1)
    assert site.introspect(token)["active"]


def test_own_tokens_do_not_depend_on_foreign_issuers(site, issuers):
    fetched = len(issuers.fetched)
    token = site.token()
    assert site.introspect(token)["iss"] == "https://authz.example"
    site.revoke(token)
    assert site.introspect(token) == INACTIVE
    assert len(issuers.fetched) == fetched


# --------------------------------------------------------------------------------- by endpoint


def test_an_opaque_token_is_asked_for_at_its_issuer(site, answering):
    seen = site.introspect("partner_abc")
    assert (seen["scope"], seen["client_id"]) == ("basic-jwt/read", "their-client")
    assert "sender_id" not in seen, "the issuer speaks for no message of this server's clients"
    (request,) = answering.server.requests
    assert request.startswith(b"POST /introspect HTTP/1.1")
    assert b"Authorization: Basic dXM6dGhlK3NlY3JldCthdCt0aGUrcGFydG5lcg==" in request
    assert b"token=partner_abc" in request
    assert site.introspect("another_abc") == INACTIVE
    assert len(answering.server.requests) == 1, "a token of nobody is sent nowhere"


@pytest.mark.parametrize(
    "changes",
    [
        {"active": False},
        {"iss": "https://other.example"},
        {"aud": "https://other.example"},
        {"aud": None},
        {"scope": None},
        {"exp": 1},
        {"sub": "client-basic"},
    ],
    ids=str,
)
def test_an_answer_against_the_rules_is_inactive(site, answering, changes):
    answering.answer = active(site, **changes)
    assert site.introspect("partner_abc") == INACTIVE


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"active": "yes"}, 503),
        ({}, 503),
        ({"exp": "soon"}, 503),
        ({"sub": {"deep": 1}}, 503),
        ({"cnf": "x"}, 503),
        ({"sub": "x" * 20_000}, 503),
    ],
    ids=lambda each: str(each)[:40],
)
def test_an_issuer_that_answers_malformed_is_not_believed(site, answering, answer, status):
    answering.answer = active(site) | answer if answer else {}
    assert refusal(site, "partner_abc")[0] == status


@pytest.mark.parametrize(
    "script",
    [
        answer_with(b"x" * 10_000_000),
        answer_with(b"[]"),
        answer_with(b"{"),
        answer_with(b'{"active": true, "active": false}'),
        answer_with(b"{}", status=500),
        answer_with(b"", status=302, extra="Location: http://127.0.0.1:1/\r\n"),
        lambda connection, _: connection.close(),
        lambda connection, _: connection.sendall(b"nothing of HTTP\r\n\r\n"),
    ],
    ids=["10 MB", "list", "cut off", "repeated", "500", "redirect", "closed", "no HTTP"],
)
def test_an_issuer_that_fails_is_a_503_and_is_left_alone(site, standing, script, caplog, failures):
    standing.script = script
    assert refusal(site, "partner_abc") == (503, "temporarily_unavailable")
    assert "the issuer partner gives no answer" in caplog.text
    assert failures == [
        ("federated_introspection", "register_introspection_sources", "unavailable")
    ]
    asked = len(standing.server.requests)
    began = time.monotonic()
    for _ in range(50):
        assert refusal(site, "partner_abc") == (503, "temporarily_unavailable")
    assert len(standing.server.requests) == asked
    assert time.monotonic() - began < 5
    assert site.introspect(site.token())["active"], "the server's own tokens are not affected"
    standing.script = None
    standing.seconds += 1.05
    assert site.introspect("partner_abc")["active"], "recovery needs no operator"


def test_an_issuer_is_left_alone_as_long_as_it_asks(site, answering):
    answering.script = answer_with(b"{}", status=429, extra="Retry-After: 3\r\n")
    assert refusal(site, "partner_abc") == (503, "temporarily_unavailable")
    answering.script = None
    time.sleep(1.5)
    assert refusal(site, "partner_abc") == (503, "temporarily_unavailable")
    time.sleep(1.6)
    assert site.introspect("partner_abc")["active"]


def test_a_token_that_an_issuer_cannot_use_is_inactive_and_no_failure(site, answering, failures):
    for status in (400, 413, 414, 422, 431):
        answering.script = answer_with(b'{"error": "invalid_token"}', status=status)
        assert site.introspect("partner_refused") == INACTIVE
    answering.script = None
    asked = len(answering.server.requests)
    for token in ("partner_\t", "partner_{}", "partner_" + "+" * 3_000):
        assert site.introspect(token) == INACTIVE
    assert len(answering.server.requests) == asked, "such a token is sent nowhere"
    assert site.introspect("partner_abc")["active"]
    assert failures == []


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b'{"error": "invalid_client"}'),
        (400, b'{"error": "invalid_request"}'),
        (400, b"<html>No required SSL certificate was sent</html>"),
        (431, b"{}"),
        (401, b'{"error": "invalid_token"}'),
    ],
)
def test_an_error_that_may_concern_every_request_is_a_failure(site, answering, status, body):
    answering.script = answer_with(body, status=status)
    assert refusal(site, "partner_abc") == (503, "temporarily_unavailable")


def test_a_slow_issuer_is_given_up_and_delays_no_own_token(site, answering):
    released = threading.Event()

    def wait(*_):
        released.wait(20)

    answering.script = wait
    answers = []
    asking = threading.Thread(target=lambda: answers.append(refusal(site, "partner_abc")))
    asking.start()
    began = time.monotonic()
    assert site.introspect(site.token())["active"]
    assert time.monotonic() - began < 1
    asking.join(10)
    released.set()
    assert answers == [(503, "temporarily_unavailable")]


def test_one_token_of_a_batch_that_cannot_be_asked_for_leaves_the_others(site, answering):
    answering.script = answer_with(b"", status=500)
    own = site.token()
    sent = site.client.post(
        "/oauth2/introspect/batch",
        data=f"token=partner_abc&token={own}&token=x",
        headers=site.callers["basic-jwt"].headers()
        | {"Content-Type": "application/x-www-form-urlencoded"},
    )
    first, second, third = sent.get_json()["responses"]
    assert (first["error"], second["active"], third) == (
        "temporarily_unavailable",
        True,
        INACTIVE,
    )
