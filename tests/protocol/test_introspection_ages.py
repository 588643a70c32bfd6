"""The time for which a response may be kept, by the risk of the scopes that the caller sees."""

import pytest

from support.parties import ACTOR
from support.stage import ApplicationFixture

AGES = {"read": 300, "write": 60, "money": 0}
RISKS = ("read", "write", "money")


@pytest.fixture(scope="module")
def aged(module_database_url, tmp_path_factory):
    stage = ApplicationFixture(
        tmp_path_factory.mktemp("aged"),
        module_database_url,
        introspection={"maximum_age_seconds": AGES},
    )
    with stage.change() as (services, session):
        for risk in RISKS:
            name = f"basic-jwt/{risk}-risk"
            services.scopes.add_scope(
                session, actor=ACTOR, name=name, risk=risk, resource_server_id="basic-jwt"
            )
        services.clients.update_client(
            session,
            "client-basic",
            actor=ACTOR,
            allowed_scopes=[f"basic-jwt/{risk}-risk" for risk in RISKS] + ["post-jwt/read"],
            default_scopes=[],
        )
    yield stage
    stage.close()


@pytest.mark.parametrize(
    ("risks", "age"),
    [(["read"], 300), (["write"], 60), (["money"], 0), (["read", "write"], 60), (RISKS, 0)],
)
def test_the_riskiest_scope_decides(aged, risks, age):
    token = aged.token(" ".join(f"basic-jwt/{risk}-risk" for risk in risks))
    assert aged.introspect(token)["max_age"] == age


def test_a_response_is_kept_no_longer_than_its_token(aged):
    token = aged.token("basic-jwt/read-risk")
    aged.clock.advance(880)
    try:
        assert aged.introspect(token)["max_age"] == 20
    finally:
        aged.clock.advance(-880)


def test_an_inactive_response_has_none_and_each_of_a_batch_its_own(aged):
    tokens = [aged.token("basic-jwt/read-risk"), "invented", aged.token("basic-jwt/money-risk")]
    sent = aged.client.post(
        "/oauth2/introspect/batch",
        data="&".join(f"token={each}" for each in tokens),
        headers=aged.callers["basic-jwt"].headers()
        | {"Content-Type": "application/x-www-form-urlencoded"},
    )
    ages = [each.get("max_age") for each in sent.get_json()["responses"]]
    assert ages == [300, None, 0]
    assert sent.headers["Cache-Control"] == "no-store"
