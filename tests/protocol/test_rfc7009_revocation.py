"""Revocation: one's own tokens, at once and for good; nobody else's, and no word about them."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from authz_server.audit.models import AuditRecord
from authz_server.tokens.models import RevokedToken
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


def revoked(stage: ApplicationFixture) -> int:
    """Return how many tokens were revoked so far."""
    with stage.services.database.reading() as session:
        return session.scalar(select(func.count()).select_from(RevokedToken)) or 0


# --------------------------------------------------------------------------------- who may revoke


@pytest.mark.parametrize("sent", [{}, {"client_id": "client-basic"}], ids=["nobody", "no-proof"])
def test_anonymous_callers_are_refused(stage: ApplicationFixture, form, sent):
    """Case E57, Case A3."""
    token = stage.token(f"basic-{form}/read")
    answer = stage.post("revoke", {"token": token} | sent)
    assert (answer.status_code, answer.get_json()["error"]) == (401, "invalid_client")
    assert stage.introspect(token, f"basic-{form}")["active"] is True


@pytest.mark.parametrize("verb", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_than_post_are_refused(stage: ApplicationFixture, verb):
    """Case B17."""
    headers = stage.callers["client-basic"].headers()
    answer = stage.client.open("/oauth2/revoke", method=verb, headers=headers)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize("sent", [{}, {"token": ""}, {"token_type_hint": "access_token"}])
def test_a_request_without_a_token_is_refused(stage: ApplicationFixture, method, sent):
    """Case E57."""
    answer = stage.post("revoke", sent, stage.callers[f"client-{method}"])
    assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid_request")


def test_the_other_authentication_method_is_refused(stage: ApplicationFixture, method, form):
    """Case A7."""
    registered = stage.callers[f"client-{method}"]
    other = {"basic": "client_secret_post", "post": "client_secret_basic"}[method]
    token = stage.token(f"basic-{form}/read", registered)
    caller = Credentials(registered.id, registered.secret, other)
    answer = stage.post("revoke", {"token": token}, caller)
    assert (answer.status_code, answer.get_json()["error"]) == (401, "invalid_client")
    assert stage.introspect(token, f"basic-{form}")["active"] is True


# ------------------------------------------------------------------------------------- own tokens


def test_an_own_token_is_inactive_from_the_answer_on(stage: ApplicationFixture, method, form):
    """Case F67."""
    caller, name = stage.callers[f"client-{method}"], f"{method}-{form}"
    token, other = (stage.token(f"{name}/read", caller) for _ in range(2))
    stage.revoke(token, caller)
    assert stage.introspect(token, name) == INACTIVE
    assert stage.introspect(token, caller) == INACTIVE
    assert stage.introspect(other, name)["active"] is True


def test_repeated_unknown_and_garbage_tokens_get_the_same_answer(
    stage: ApplicationFixture, method, form
):
    """Case F67."""
    caller, name = stage.callers[f"client-{method}"], f"{method}-{form}"
    token = stage.token(f"{name}/read", caller)
    first = seen(stage.post("revoke", {"token": token}, caller))
    status, headers, body = first
    assert (status, body) == (200, b"{}")
    assert headers["Cache-Control"] == "no-store"
    before = revoked(stage)
    for other in (token, "x" * 43, "garbage", "..", "\N{SNOWMAN}", "a" * 8_000):
        assert seen(stage.post("revoke", {"token": other}, caller)) == first
    assert revoked(stage) == before


def test_an_expired_token_leaves_nothing_behind(stage: ApplicationFixture, method, form):
    """Case F67."""
    caller, name = stage.callers[f"client-{method}"], f"{method}-{form}"
    token = stage.token(f"{name}/read", caller)
    stage.clock.advance(900)
    before = revoked(stage)
    stage.revoke(token, caller)
    assert revoked(stage) == before


def test_a_token_is_revoked_once_however_many_ask_at_once(stage: ApplicationFixture, method, form):
    """Case F67, Case K124."""
    caller, name = stage.callers[f"client-{method}"], f"{method}-{form}"
    token = stage.token(f"{name}/read", caller)
    jti, before = stage.introspect(token, name)["jti"], revoked(stage)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: stage.revoke(token, caller), range(12)))
    assert revoked(stage) == before + 1
    lines = [each for each in stage.records() if each.get("jti") == jti]
    assert [each["event"] for each in lines] == [
        *("token.issued", "token.revoking", "token.revoked")
    ]
    with stage.services.database.reading() as session:
        stored = session.scalars(select(AuditRecord).where(AuditRecord.subject == jti)).all()
    assert [(each.action, each.actor) for each in stored] == [("token.revoked", caller.id)]


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "invented", "\N{SNOWMAN}"])
def test_a_hint_is_ignored(stage: ApplicationFixture, method, form, hint):
    """Case F69."""
    caller, name = stage.callers[f"client-{method}"], f"{method}-{form}"
    token = stage.token(f"{name}/read", caller)
    answer = stage.post("revoke", {"token": token, "token_type_hint": hint}, caller)
    assert (answer.status_code, answer.data) == (200, b"{}")
    assert stage.introspect(token, name) == INACTIVE


# --------------------------------------------------------------------------------- others' tokens


def test_nobody_revokes_or_recognises_the_token_of_another(stage: ApplicationFixture, method, form):
    """Case F68."""
    name = f"{method}-{form}"
    owner = stage.callers["client-basic" if method == "post" else "client-post"]
    everyone = [stage.callers[f"client-{method}"], stage.callers[name]]
    everyone.append(stage.new_client(method, permissions=["introspect:any"]))
    for caller in everyone:
        token = stage.token(f"{name}/read", owner)
        invented = token[:-20] + token[-20:][::-1]
        before = revoked(stage)
        theirs = stage.post("revoke", {"token": token}, caller)
        assert seen(theirs) == seen(stage.post("revoke", {"token": invented}, caller))
        assert revoked(stage) == before
        assert stage.introspect(token, name)["active"] is True, caller.id


def test_a_client_without_its_scopes_still_revokes(stage: ApplicationFixture, form):
    """Case F67."""
    client, name = stage.new_client(), f"basic-{form}"
    token = stage.token(f"{name}/read", client)
    with stage.change() as (services, session):
        services.clients.update_client(
            session, client.id, actor=ACTOR, allowed_scopes=[], default_scopes=[]
        )
    stage.revoke(token, client)
    with stage.change() as (services, session):
        services.clients.update_client(
            session, client.id, actor=ACTOR, allowed_scopes=[f"{name}/read"]
        )
    # Given back, the scope does not bring the token back.
    assert stage.introspect(token, name) == INACTIVE
