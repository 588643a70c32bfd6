"""Introspection: who hears what of a token, and that every no is the same no."""

import math
import time
from statistics import median

import pytest

from support.forged_tokens import token_of
from support.parties import ACTOR, Credentials
from support.stage import FORMATS, INACTIVE, METHODS, ApplicationFixture

HEADERS_OF_ITS_OWN = ("X-Request-Id",)


@pytest.fixture(params=METHODS)
def method(request) -> str:
    """The client authentication method of the caller."""
    return request.param


@pytest.fixture(params=FORMATS)
def form(request) -> str:
    """The format of the tokens."""
    return request.param


def seen(response) -> tuple:
    """Return everything of an answer that a caller could tell apart."""
    headers = {k: v for k, v in response.headers.items() if k not in HEADERS_OF_ITS_OWN}
    return response.status_code, headers, response.data


# ------------------------------------------------------------------------------------ who may ask


@pytest.mark.parametrize(
    "form_sent", [{}, {"client_id": "client-post"}], ids=["nobody", "no-proof"]
)
def test_anonymous_callers_are_refused(stage: ApplicationFixture, form_sent):
    """Case E57, Case A3."""
    answer = stage.post("introspect", {"token": stage.token()} | form_sent)
    assert (answer.status_code, answer.get_json()["error"]) == (401, "invalid_client")
    assert "WWW-Authenticate" not in answer.headers


@pytest.mark.parametrize("verb", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_than_post_are_refused(stage: ApplicationFixture, verb):
    """Case E57, Case B17."""
    headers = stage.callers["basic-jwt"].headers()
    answer = stage.client.open("/oauth2/introspect", method=verb, headers=headers)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize("sent", [{}, {"token": ""}, {"token_type_hint": "access_token"}])
def test_a_request_without_a_token_is_refused(stage: ApplicationFixture, method, sent):
    """Case E57."""
    answer = stage.post("introspect", sent, stage.callers[f"{method}-jwt"])
    assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid_request")


def test_the_other_authentication_method_is_refused(stage: ApplicationFixture, method):
    """Case A7."""
    registered = stage.callers[f"{method}-jwt"]
    other = {"basic": "client_secret_post", "post": "client_secret_basic"}[method]
    caller = Credentials(registered.id, registered.secret, other)
    answer = stage.post("introspect", {"token": "invented"}, caller)
    assert (answer.status_code, answer.get_json()["error"]) == (401, "invalid_client")


# ------------------------------------------------------------------------------------- who hears


def test_a_resource_server_hears_of_tokens_for_it(stage: ApplicationFixture, method, form):
    """Case E59."""
    name = f"{method}-{form}"
    answer = stage.introspect(stage.token(f"{name}/read {name}/write"), name)
    issued_at = int(stage.clock().timestamp())
    jti = answer.pop("jti")
    assert len(jti) == 32
    assert answer == {
        "active": True,
        "scope": f"{name}/read {name}/write",
        "client_id": "client-basic",
        "sub": "client-basic",
        "aud": f"https://{name}.example",
        "iss": "https://authz.example",
        "exp": issued_at + 900,
        "iat": issued_at,
        "token_type": "Bearer",
    }


def test_nobody_may_keep_an_answer(stage: ApplicationFixture, method, form):
    name = f"{method}-{form}"
    for token in (stage.token(f"{name}/read"), "invented"):
        answer = stage.post("introspect", {"token": token}, stage.callers[name])
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Type"] == "application/json"


def test_a_resource_server_outside_the_audience_hears_nothing(
    stage: ApplicationFixture, method, form
):
    """Case E59."""
    name = f"{method}-{form}"
    token = stage.token(f"{name}/read")
    for other, caller in stage.callers.items():
        if other not in {name, "client-basic"}:
            assert stage.introspect(token, caller) == INACTIVE, other


def test_the_client_itself_hears_of_its_tokens_and_of_no_others(
    stage: ApplicationFixture, method, form
):
    """Case E59."""
    own = stage.callers[f"client-{method}"]
    other = stage.callers["client-basic" if method == "post" else "client-post"]
    token = stage.token(f"basic-{form}/read", own)
    assert stage.introspect(token, own)["scope"] == f"basic-{form}/read"
    assert stage.introspect(token, other) == INACTIVE


def test_a_caller_with_the_permission_hears_of_every_token(stage: ApplicationFixture, method, form):
    """Case E59."""
    watcher = stage.new_client(method, permissions=["introspect:any"])
    name = f"{method}-{form}"
    token = stage.token(f"{name}/read {name}/write")
    assert stage.introspect(token, watcher)["scope"] == f"{name}/read {name}/write"
    with stage.change() as (services, session):
        services.clients.update_client(session, watcher.id, actor=ACTOR, permissions=[])
    assert stage.introspect(token, watcher) == INACTIVE


def test_a_resource_server_hears_only_the_scopes_it_owns(stage: ApplicationFixture, form):
    """Case E59."""
    name = f"basic-{form}"
    token = stage.token(f"{name}/read {name}/write")
    with stage.change() as (services, session):
        services.scopes.assign(session, [f"{name}/write"], "post-jwt", actor=ACTOR)
    try:
        assert stage.introspect(token, name)["scope"] == f"{name}/read"
        # Who owns the other one now is not in the token's audience.
        assert stage.introspect(token, "post-jwt") == INACTIVE
    finally:
        with stage.change() as (services, session):
            services.scopes.assign(session, [f"{name}/write"], name, actor=ACTOR)
    assert stage.introspect(token, name)["scope"] == f"{name}/read {name}/write"


# ---------------------------------------------------------------------------------- every no alike


def noes(stage: ApplicationFixture, name: str) -> dict[str, str]:
    """Return tokens that the resource server `name` must hear nothing of, by what is wrong."""
    revoked = stage.token(f"{name}/read")
    stage.revoke(revoked)
    now = int(stage.clock().timestamp())
    sound = stage.sign(stage.claims())
    head, body, signature = sound.split(".")
    other_name = "post-jwt" if name != "post-jwt" else "basic-jwt"
    return {
        "unknown": "x" * 43,
        "malformed": "not a token",
        "dots": "..",
        "long": "a" * 8_000,
        "unicode": "tök€n",
        "expired": stage.sign(stage.claims(iat=now - 901, exp=now - 1)),
        "not yet valid": stage.sign(stage.claims(nbf=now + 120)),
        "issued in the future": stage.sign(stage.claims(iat=now + 120, exp=now + 900)),
        "revoked": revoked,
        "foreign issuer": stage.sign(stage.claims(iss="https://other.example")),
        "foreign key": token_of({"alg": "ES256", "kid": "x" * 43, "typ": "at+jwt"}),
        "foreign signature": f"{head}.{body}.{'A' * len(signature)}",
        "foreign audience": stage.token(f"{other_name}/read"),
        "unknown client": stage.sign(stage.claims(sub="nobody", client_id="nobody")),
        "no scope of ours": stage.sign(stage.claims(scope="invented/scope")),
        "another type": stage.sign(stage.claims(), typ="token-introspection+jwt"),
    }


def test_every_reason_for_no_gives_the_same_answer(stage: ApplicationFixture, method, form):
    """Case E58."""
    name = f"{method}-{form}"
    answers = {
        why: seen(stage.post("introspect", {"token": token}, stage.callers[name]))
        for why, token in noes(stage, name).items()
    }
    status, headers, body = answers["unknown"]
    assert (status, body) == (200, b'{"active":false}')
    assert headers["Content-Type"] == "application/json"
    assert {why for why, answer in answers.items() if answer != answers["unknown"]} == set()


def test_every_no_takes_about_as_long(stage: ApplicationFixture, method):
    """Case E58."""
    name = f"{method}-jwt"
    tokens = noes(stage, name)
    quickest = dict.fromkeys(tokens, math.inf)
    # The quickest of many says what the work itself costs, whatever else the machine does: more
    # of them only bring it nearer to that.
    for _ in range(6):
        for _ in range(25):
            for why, token in tokens.items():
                began = time.thread_time()
                stage.introspect(token, name)
                quickest[why] = min(quickest[why], time.thread_time() - began)
        middle = median(quickest.values())
        # A signature or a look-up spared would show as a half.
        odd = {why: took for why, took in quickest.items() if not 0.6 < took / middle < 1.6}
        if not odd:
            break
    assert odd == {}


@pytest.mark.parametrize(
    "hint", ["access_token", "refresh_token", "invented", "ACCESS TOKEN", "\N{SNOWMAN}"]
)
def test_a_hint_changes_nothing(stage: ApplicationFixture, method, form, hint):
    """Case E61."""
    name = f"{method}-{form}"
    for token in (stage.token(f"{name}/read"), "invented"):
        asking = {"token": token, "token_type_hint": hint}
        answer = stage.post("introspect", asking, stage.callers[name])
        assert seen(answer) == seen(stage.post("introspect", {"token": token}, stage.callers[name]))


# ------------------------------------------------------------------------- what happens afterwards


def test_a_token_ends_at_its_second(stage: ApplicationFixture, method, form):
    """Case E58, Case D50."""
    name = f"{method}-{form}"
    token = stage.token(f"{name}/read")
    stage.clock.advance(899.999)
    assert stage.introspect(token, name)["active"] is True
    stage.clock.advance(0.001)
    assert stage.introspect(token, name) == INACTIVE


ENDS = {
    "disabled": lambda services, *named: services.clients.set_enabled(
        *named, actor=ACTOR, enabled=False
    ),
    "deleted": lambda services, *named: services.clients.delete_client(*named, actor=ACTOR),
    "expired": lambda services, *named: services.clients.update_client(
        *named, actor=ACTOR, expires_at=services.clock()
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_tokens_end_with_their_client(stage: ApplicationFixture, method, form, end):
    """Case E64."""
    name = f"{method}-{form}"
    client = stage.new_client(method)
    watcher = stage.new_client(method, permissions=["introspect:any"])
    token = stage.token(f"{name}/read", client)
    assert stage.introspect(token, name)["active"] is True
    # Committed, and this process not told: the introspection itself has to notice.
    with stage.services.database.transaction() as session:
        ENDS[end](stage.services, session, client.id)
    assert stage.introspect(token, name) == INACTIVE
    assert stage.introspect(token, watcher) == INACTIVE
    refused = stage.post("introspect", {"token": token}, client)
    assert (refused.status_code, refused.get_json()["error"]) == (401, "invalid_client")


def test_tokens_of_a_deleted_client_do_not_become_those_of_its_successor(
    stage: ApplicationFixture, form
):
    """Case E64."""
    name = f"basic-{form}"
    client = stage.new_client()
    token = stage.token(f"{name}/read", client)
    with stage.change() as (services, session):
        services.clients.delete_client(session, client.id, actor=ACTOR)
    stage.clock.advance(60)
    with stage.change() as (services, session):
        services.clients.create_client(
            session,
            actor=ACTOR,
            id=client.id,
            name="Successor",
            authentication_method="client_secret_basic",
            allowed_scopes=[f"{name}/read"],
        )
        successor = stage.add_secret(session, client.id)
    assert stage.introspect(token, name) == INACTIVE
    assert stage.introspect(token, successor) == INACTIVE
    assert stage.introspect(stage.token(f"{name}/read", successor), name)["active"] is True


def test_a_withdrawn_scope_leaves_the_token(stage: ApplicationFixture, method, form):
    """Case E64."""
    name = f"{method}-{form}"
    client = stage.new_client(method)
    token = stage.token(f"{name}/read {name}/write", client)
    only_read = {"allowed_scopes": [f"{name}/read"], "default_scopes": []}
    with stage.services.database.transaction() as session:
        stage.services.clients.update_client(session, client.id, actor=ACTOR, **only_read)
    assert stage.introspect(token, name)["scope"] == f"{name}/read"
    assert stage.introspect(token, client)["scope"] == f"{name}/read"
    elsewhere = "post-jwt/read" if name == "basic-jwt" else "basic-jwt/read"
    other = {"allowed_scopes": [elsewhere], "default_scopes": []}
    with stage.services.database.transaction() as session:
        stage.services.clients.update_client(session, client.id, actor=ACTOR, **other)
    assert stage.introspect(token, name) == INACTIVE
    assert stage.introspect(token, client) == INACTIVE
