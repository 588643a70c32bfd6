"""Explanations for a caller with limits: right for the whole server, without names of others."""

import json

import pytest
from werkzeug.test import Client

from authz_server.operations.clients import set_enabled
from authz_server.operations.permissions import ROLES
from authz_server.operations.programmes import define_programme
from authz_server.operations.stops import lift_stop, plan_stop, set_stop
from support.admin_site import FROM
from support.administrators import BY_ORGANISATION, BY_SERVER, MARK
from support.parties import ACTOR
from support.token_exchange import ACCESS_TOKEN, GRANT_TYPE

RESOURCE = "urn:test:mine"


@pytest.fixture
def origin(ours) -> str:
    """The id of a client of others, whose tokens an own one exchanges."""
    return _new_client(ours, f"{MARK}-origin", [f"{MARK}/read", "mine/read"], organisation=MARK)


@pytest.fixture
def gateway(ours) -> str:
    """The id of an own client that exchanges any token for the own resource server."""
    policy = {"subjects": ["*"], "audiences": ["mine"]}
    return _new_client(
        ours,
        "own-gateway",
        ["mine/read"],
        organisation="Own",
        grant_types=["client_credentials", GRANT_TYPE],
        properties={"token_exchange": policy},
    )


def _new_client(ours, name: str, scopes, **fields) -> str:
    site = ours.site
    made = site.new_client(
        name, allowed_scopes=scopes, authentication_method="client_secret_post", **fields
    )
    site.secrets[made["id"]] = made["secret"]["value"]
    site.public.extensions["authz_server"].feed.poll()
    return str(made["id"])


def _exchange(ours, gateway: str, origin: str) -> str:
    site = ours.site
    presented = site.new_token("mine/read", client=origin, resource=RESOURCE)
    form = {
        "grant_type": GRANT_TYPE,
        "client_id": gateway,
        "client_secret": site.secrets[gateway],
        "scope": "mine/read",
        "subject_token": presented,
        "subject_token_type": ACCESS_TOKEN,
    }
    answer = Client(site.public).post("/oauth2/token", data=form, environ_base=FROM)
    assert answer.status_code == 200, answer.text
    return str(answer.json["access_token"])


def _explain(ours, limits, token: str):
    question = {"token": token, "caller": "mine"}
    caller = ours.caller(*ROLES, limits=limits)
    done = ours.perform(caller, "POST", "/explanations/tokens", body=question)
    assert done.status == 200, done.body
    return done.body


@pytest.mark.parametrize("limits", [BY_SERVER, BY_ORGANISATION], ids=["server", "organisation"])
def test_the_client_of_an_origin_is_judged_and_not_named(ours, origin, gateway, limits):
    """It is not called deleted, because it is there; its state is that of an earlier token."""
    services = ours.site.services
    token = _exchange(ours, gateway, origin)
    assert _explain(ours, limits, token)["active"] is True
    stop = ("scope", "mine/read")
    set_stop(services, plan_stop(services, *stop), reason="x", actor=ACTOR)
    try:
        found = _explain(ours, limits, token)
    finally:
        lift_stop(services, *stop, reason="x", actor=ACTOR)
    assert found["cause"] == "scope_stopped"
    set_enabled(services, origin, kind="client", enabled=False, actor=ACTOR)
    found = _explain(ours, limits, token)
    assert (found["active"], found["cause"]) == (False, "origin_revoked")
    assert origin not in json.dumps(found)


@pytest.mark.parametrize("limits", [BY_SERVER, BY_ORGANISATION], ids=["server", "organisation"])
@pytest.mark.parametrize("member", ["client", "scope"])
def test_the_stop_of_a_programme_is_not_named(ours, gateway, limits, member):
    """That one is in force is explained, of requests and of tokens."""
    site, services = ours.site, ours.site.services
    token = site.new_token("mine/read", client=gateway, resource=RESOURCE)
    members = {"client": ([], [gateway]), "scope": (["mine/read"], [])}
    scopes, clients = members[member]
    name = f"{MARK}: cash {member}"
    define_programme(services, name, scopes=scopes, clients=clients, actor=ACTOR)
    set_stop(services, plan_stop(services, "programme", name), reason="x", actor=ACTOR)
    body = {"client_id": gateway, "scope": "mine/read"}
    try:
        caller = ours.caller(*ROLES, limits=limits)
        of_request = ours.perform(caller, "POST", "/explanations/requests", body=body).body
        of_token = _explain(ours, limits, token)
        everything = ours.caller(*ROLES)
        whole = ours.perform(everything, "POST", "/explanations/requests", body=body).body
    finally:
        lift_stop(services, "programme", name, reason="x", actor=ACTOR)
    for found in (of_request, of_token):
        assert found["cause"] == "programme_stopped"
        assert found["remedy"]
        assert MARK not in json.dumps(found)
    assert name in whole["detail"]
