"""Generated requests: whatever arrives, the answer is one that the description lists."""

import dataclasses
import json
import os
from itertools import product

import pytest

from authz_server.app import features_of
from authz_server.endpoints.languages import MessageCatalogue
from authz_server.endpoints.openapi import describe_interface
from authz_server.endpoints.wsgi import ABSOLUTE
from authz_server.errors import REASONS
from support.hostile_requests import MARKER, HostileRequests, SoundRequest
from support.protocol import ENDPOINTS, FORM_TYPE, running_protocol
from support.wsgi import RawAnswer, RawRequest, call

CHUNKS = 5
REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "1000")) // CHUNKS
SEED = os.environ.get("FUZZ_SEED", "1")
DOCUMENTS = (
    "/.well-known/jwks.json",
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
)
REFUSALS = {(each.status, each.error, each.description) for each in REASONS.values()}


class Judge:
    """Knows what may be answered to what."""

    def __init__(self, protocol) -> None:
        settings = protocol.services.settings
        document = describe_interface(features_of(protocol.services), settings.g2p)
        self._paths = document["paths"]
        self._served = {*ENDPOINTS.values(), *DOCUMENTS}
        catalogue = MessageCatalogue("en", "")
        self._messages = {
            catalogue.message(name, language)
            for name, language in product(REASONS, catalogue.languages)
        }
        self.shown = protocol.new_token()
        self._known = {protocol.ask("introspect", protocol.demo.mapper, token=self.shown).text}
        self.counts: dict[int, int] = {}

    def judge(self, request: RawRequest, answer: RawAnswer) -> None:
        """Raise AssertionError unless the answer is in order."""
        self.counts[answer.status] = self.counts.get(answer.status, 0) + 1
        # A server may hand on the host of an absolute target in the path.
        if absolute := ABSOLUTE.fullmatch(request.path):
            request = dataclasses.replace(request, path=absolute[2] or "/")
        assert answer.status < 500
        assert str(answer.status) in self._statuses(request)
        assert len(answer.headers["x-request-id"]) == 16
        assert answer.headers["x-content-type-options"] == "nosniff"
        self._require_no_echo(request, answer)
        if answer.status >= 400:
            self._require_refusal(request, answer)
        elif answer.status == 200 and request.method == "POST":
            self._require_success(request, answer)

    def _statuses(self, request: RawRequest) -> set[str]:
        # A Host that cannot be one, and a coding, are refused before anything else is looked at.
        malformed = {"400"} if request.headers.keys() & {"Host", "Transfer-Encoding"} else set()
        if request.path not in self._served:
            return {"404"} | malformed
        item = self._paths[request.path]
        method = "GET" if request.method == "HEAD" else request.method
        operation = item.get(method.lower())
        return malformed | (set(operation["responses"]) - {"405"} if operation else {"405"})

    def _require_no_echo(self, request: RawRequest, answer: RawAnswer) -> None:
        echoed = {answer.headers.pop("message_id", "")}
        assert echoed <= {"", request.headers.get("message_id")}
        assert MARKER.encode() not in answer.body
        assert MARKER not in str(answer.headers)
        assert "set-cookie" not in answer.headers

    def _require_refusal(self, request: RawRequest, answer: RawAnswer) -> None:
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["pragma"] == "no-cache"
        if request.method == "HEAD":
            assert answer.body == b""
            return
        members = json.loads(answer.body)
        if request.path == ENDPOINTS["g2p"]:
            (error,) = members.pop("errors")
            assert error.pop("code") == members["error"]
            message = (answer.headers["content-language"], error.pop("message"))
            assert message in self._messages
            assert error == {}
        told = (answer.status, members.pop("error"), members.pop("error_description"))
        assert told in REFUSALS
        assert members == {}
        challenged = "www-authenticate" in answer.headers
        # An empty header is an absent one.
        assert challenged == (answer.status == 401 and bool(request.headers.get("Authorization")))

    def _require_success(self, request: RawRequest, answer: RawAnswer) -> None:
        assert answer.headers["cache-control"] == "no-store"
        if request.path == ENDPOINTS["revoke"]:
            assert answer.body == b"{}"
        elif request.path == ENDPOINTS["introspect"]:
            if answer.headers["content-type"] == "application/json":
                assert answer.body.decode() in self._known | {'{"active":false}'}
        else:
            scopes = json.loads(answer.body)["scope"].split(" ")
            assert len(scopes) == len(set(scopes))
            assert all(scope.startswith(("mapper/", "disburse/")) for scope in scopes)


def sound_requests(protocol, judge) -> list[SoundRequest]:
    """Return one sound request for each endpoint and authentication method, and each document."""
    tokens = {"introspect": judge.shown, "revoke": protocol.new_token(protocol.demo.post)}
    found = [SoundRequest("GET", path, {}, ()) for path in DOCUMENTS]
    callers = (protocol.demo.post, protocol.demo.basic, protocol.demo.mapper)
    for (endpoint, path), caller in product(ENDPOINTS.items(), callers):
        headers = (
            {"Content-Type": FORM_TYPE} | caller.headers() | protocol.profile_headers(endpoint)
        )
        form = protocol.form(endpoint, tokens.get(endpoint, "")) | caller.form()
        found.append(SoundRequest("POST", path, headers, tuple(form.items())))
    return found


@pytest.fixture
def protocol(database_url, tmp_path):
    """An application of this test alone."""
    with running_protocol(tmp_path, database_url) as protocol:
        yield protocol


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_generated_requests_are_answered_in_order(protocol, chunk):
    """Case I106, D36, D40, D46, K123, K127"""
    judge = Judge(protocol)
    seed = f"{SEED}-{chunk}"
    print(f"seed {seed}")  # noqa: T201 - a failing run shows how to repeat it
    requests = HostileRequests(seed, sound_requests(protocol, judge))
    for number in range(REQUESTS):
        request = requests.make()
        answer = call(protocol.app, request)
        try:
            judge.judge(request, answer)
        except (AssertionError, KeyError, ValueError) as fault:
            pytest.fail(f"request {number} of seed {seed}: {request}\n{answer}\n{fault!r}")
    assert judge.counts[200] > REQUESTS // 20, judge.counts
    assert judge.counts[400] > REQUESTS // 20, judge.counts
    trail = protocol.audit_trail()
    records = [json.loads(line) for line in trail.splitlines()]
    assert len(records) == trail.count("\n") > REQUESTS // 20, "a record is one line"
    assert protocol.is_active(judge.shown)
    for endpoint in ENDPOINTS:
        assert protocol.ask(endpoint, protocol.demo.post).status_code == 200
