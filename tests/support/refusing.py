"""Tokens that must be refused, at each endpoint that takes tokens in, by each method."""

import pytest
from sqlalchemy import func, select

from authz_server.tokens.models import RevokedToken
from support.parties import Credentials
from support.stage import INACTIVE, METHODS, ApplicationFixture

ENDPOINTS = ("introspect", "revoke")


@pytest.fixture(params=METHODS)
def caller(request, stage: ApplicationFixture) -> Credentials:
    """A client, of either authentication method: whose token each forgery claims to be."""
    return stage.callers[f"client-{request.param}"]


@pytest.fixture(params=ENDPOINTS)
def endpoint(request) -> str:
    """The endpoint that gets the token."""
    return request.param


@pytest.fixture
def claims(stage: ApplicationFixture, caller: Credentials) -> dict:
    """Sound claims of a token of the caller."""
    return stage.claims(sub=caller.id, client_id=caller.id)


@pytest.fixture
def refuse(stage: ApplicationFixture, endpoint: str, caller: Credentials):
    """A function of named tokens; each must be refused, without effect."""

    def check(tokens: dict[str, str]) -> None:
        before = revoked(stage)
        for name, token in tokens.items():
            answer = stage.post(endpoint, {"token": token}, caller)
            assert answer.status_code == 200, (name, answer.text)
            if endpoint == "introspect":
                assert answer.get_json() == INACTIVE, name
            else:
                assert answer.get_json() == {}, name
            assert revoked(stage) == before, name

    return check


def revoked(stage: ApplicationFixture) -> int:
    """Return how many tokens were revoked so far."""
    with stage.services.database.reading() as session:
        return session.scalar(select(func.count()).select_from(RevokedToken)) or 0
