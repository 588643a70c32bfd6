"""The registered name and organisation of a client in introspection, for the log of an API."""

import pytest

from support.parties import ACTOR
from support.stage import ApplicationFixture


@pytest.fixture(params=[True, False])
def named(request, database_url, tmp_path):
    stage = ApplicationFixture(
        tmp_path, database_url, introspection={"client_names": request.param}
    )
    yield stage, request.param
    stage.close()


def names(answer):
    return {name: answer[name] for name in ("client_name", "organisation") if name in answer}


def rename(stage, **fields):
    with stage.change() as (services, session):
        services.clients.update_client(session, "client-basic", actor=ACTOR, **fields)


def test_they_are_told_where_the_settings_say_so_and_as_they_are_now(named):
    stage, told = named
    rename(stage, name="Ministry", organisation="Government")
    token = stage.token()
    expected = {"client_name": "Ministry", "organisation": "Government"} if told else {}
    assert names(stage.introspect(token)) == expected
    rename(stage, name="Agency", organisation="")
    assert names(stage.introspect(token)) == ({"client_name": "Agency"} if told else {})
    sent = stage.client.post(
        "/oauth2/introspect/batch",
        data=f"token={token}&token=invented",
        headers=stage.callers["basic-jwt"].headers()
        | {"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert [names(each) for each in sent.get_json()["responses"]] == [
        {"client_name": "Agency"} if told else {},
        {},
    ]
