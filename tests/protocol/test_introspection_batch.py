"""Introspection of several tokens by one request: each as if it were alone, in order."""

import json
from time import process_time
from urllib.parse import urlencode

import pytest
from sqlalchemy import event

from authz_server.endpoints.introspection_batch import MAXIMUM_TOKENS
from support.parties import ACTOR
from support.stage import FORMATS, INACTIVE, METHODS, ApplicationFixture

PATH = "/oauth2/introspect/batch"
FORM, JSON = "application/x-www-form-urlencoded", "application/json"


@pytest.fixture(params=METHODS)
def method(request) -> str:
    """The client authentication method of the caller."""
    return request.param


@pytest.fixture(params=(FORM, JSON))
def media_type(request) -> str:
    """The media type of the request."""
    return request.param


def ask(stage, tokens, caller, media_type=FORM, **extra):
    credentials = caller.form() if caller else {}
    if media_type == JSON:
        body = json.dumps({"tokens": tokens, **credentials, **extra})
    else:
        pairs = [("token", each) for each in tokens]
        body = urlencode([*pairs, *(credentials | extra).items()])
    headers = (caller.headers() if caller else {}) | {"Content-Type": media_type}
    return stage.client.post(PATH, data=body, headers=headers)


def responses(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.get_json()
    assert list(body) == ["responses"]
    return body["responses"]


def test_each_token_is_answered_as_if_it_were_alone(stage: ApplicationFixture, method, media_type):
    for form in FORMATS:
        name = f"{method}-{form}"
        other = f"{'post' if method == 'basic' else 'basic'}-jwt"
        right, revoked = stage.token(f"{name}/read {name}/write"), stage.token(f"{name}/read")
        stage.revoke(revoked)
        ended = stage.new_client(method)
        of_ended = stage.token(f"{name}/read", ended)
        with stage.change() as (services, session):
            services.clients.set_enabled(session, ended.id, actor=ACTOR, enabled=False)
        tokens = [
            *(right, "invented", revoked, stage.token(f"{other}/read"), right, of_ended),
            *("x" * 43, "", "a.b.c", "\u00e9", stage.token(f"{name}/write"), right + "x"),
            stage.sign(stage.claims(exp=1)),
        ]
        caller = stage.callers[name]
        alone = [stage.introspect(each, name) if each else INACTIVE for each in tokens]
        assert responses(ask(stage, tokens, caller, media_type)) == alone
        assert [each["active"] for each in alone].count(True) == 3


def test_a_token_cut_off_with_its_client_is_inactive(stage: ApplicationFixture):
    client = stage.new_client("basic")
    token, reference = (
        stage.token("basic-jwt/read", client),
        stage.token("basic-reference/read", client),
    )
    with stage.change() as (services, session):
        services.clients.set_enabled(
            session, client.id, actor=ACTOR, enabled=False, revoke_tokens=True
        )
        services.clients.set_enabled(session, client.id, actor=ACTOR, enabled=True)
    for name, each in (("basic-jwt", token), ("basic-reference", reference)):
        assert responses(ask(stage, [each], stage.callers[name])) == [INACTIVE]


def test_a_hundred_tokens_are_described_and_no_more(stage: ApplicationFixture, media_type):
    caller = stage.callers["basic-jwt"]
    tokens = [stage.token() for _ in range(3)] * 33 + ["invented"]
    found = responses(ask(stage, tokens, caller, media_type))
    assert len(found) == MAXIMUM_TOKENS == 100
    assert [each["active"] for each in found] == [True] * 99 + [False]
    refused = ask(stage, [*tokens, "one-more"], caller, media_type)
    assert (refused.status_code, refused.get_json()["error"]) == (400, "invalid_request")
    assert stage.records()[-1]["reason"] == "parameters_too_many"


def test_refusals_are_those_of_a_single_introspection(stage: ApplicationFixture, media_type):
    caller = stage.callers["post-jwt"]
    token = stage.token("post-jwt/read")
    for answer, status, error in (
        (ask(stage, [token], None, media_type), 401, "invalid_client"),
        (ask(stage, [], caller, media_type), 400, "invalid_request"),
        (ask(stage, [token], caller, media_type, client_secret="wrong"), 401, "invalid_client"),
        (stage.client.get(PATH), 405, "invalid_request"),
        (
            stage.client.post(f"{PATH}?token={token}", headers={"Content-Type": media_type}),
            400,
            "invalid_request",
        ),
        (
            stage.client.post(PATH, data="<x/>", headers={"Content-Type": "text/xml"}),
            415,
            "invalid_request",
        ),
        (ask(stage, ["x" * 270_000], caller, media_type), 413, "invalid_request"),
    ):
        assert (answer.status_code, answer.get_json()["error"]) == (status, error), answer.text
    assert stage.records()[-1]["event"] == "introspection.refused"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{",
        '{"tokens": "x"}',
        '{"tokens": [1]}',
        '{"tokens": [["x"]]}',
        '{"tokens": ["x"], "tokens": ["y"]}',
        '{"tokens": ["x"], "client_id": 1}',
        '{"tokens": ["x"], "client_id": "\\u00e9"}',
        '{"tokens": ["\\ud800"]}',
        '{"tokens": [' + "[" * 20_000,
    ],
    ids=lambda body: body[:20],
)
def test_json_that_is_malformed_is_refused(stage: ApplicationFixture, body):
    headers = stage.callers["basic-jwt"].headers() | {"Content-Type": JSON}
    answer = stage.client.post(PATH, data=body, headers=headers)
    assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid_request")


def test_a_form_whose_name_of_a_token_is_encoded_is_refused(stage: ApplicationFixture):
    headers = stage.callers["basic-jwt"].headers() | {"Content-Type": FORM}
    answer = stage.client.post(PATH, data="token=a&tok%65n=b", headers=headers)
    assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid_request")


def test_guesses_at_a_batch_count_against_the_guesser(sqlite_url, tmp_path):
    stage = ApplicationFixture(tmp_path, sqlite_url, clients={"failures_per_window": 3})
    try:
        caller = stage.callers["post-jwt"]
        statuses = [ask(stage, ["x"], caller, client_secret="wrong").status_code for _ in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
    finally:
        stage.close()


def test_the_metadata_has_its_address_and_a_setting_ends_it(sqlite_url, tmp_path, stage):
    metadata = stage.client.get("/.well-known/oauth-authorization-server").get_json()
    assert metadata["introspection_batch_endpoint"] == f"https://authz.example{PATH}"
    assert metadata["introspection_batch_maximum_tokens"] == 100
    off = ApplicationFixture(tmp_path, sqlite_url, introspection={"batch": False})
    try:
        metadata = off.client.get("/.well-known/oauth-authorization-server").get_json()
        assert "introspection_batch_endpoint" not in metadata
        assert ask(off, ["x"], off.callers["basic-jwt"]).status_code == 404
    finally:
        off.close()


def test_a_batch_takes_one_pass_over_the_database(stage: ApplicationFixture):
    """A batch costs less than its tokens alone, which query the database one by one."""
    caller = stage.callers["basic-jwt"]
    tokens = [stage.token() for _ in range(50)]
    statements = []

    def note(*seen):
        statements.append(seen[2])

    event.listen(stage.services.database.engine, "before_cursor_execute", note)
    began = process_time()
    assert len(responses(ask(stage, tokens, caller))) == 50
    together = process_time() - began
    event.remove(stage.services.database.engine, "before_cursor_execute", note)
    assert len([each for each in statements if "revoked_token" in each]) == 1
    began = process_time()
    for token in tokens:
        stage.introspect(token)
    assert together < process_time() - began


def test_serve_takes_a_larger_body_for_a_batch_than_elsewhere(stage: ApplicationFixture):
    padding = [(f"state{number}", "x" * 8_000) for number in range(3)]
    body = urlencode([("token", stage.token())] * 100 + padding).encode()
    assert len(body) > stage.settings.server.maximum_body_bytes
    basic = stage.callers["basic-jwt"].headers()["Authorization"]
    for path, status in ((PATH, 200), ("/oauth2/introspect", 413)):
        head = (
            f"POST {path} HTTP/1.1\r\nHost: authz.example\r\nAuthorization: {basic}\r\n"
            f"Content-Type: {FORM}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        answer = stage.client.twin.ask(head.encode() + body)
        assert answer.status == status, path
        if status == 200:
            found = json.loads(answer.body)["responses"]
            assert [each["active"] for each in found] == [True] * 100
