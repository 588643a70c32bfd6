"""A spelling of a scope is not granted without a second person, by whichever way it moves."""

import json
from datetime import timedelta
from urllib.parse import quote

import pytest
from sqlalchemy import delete

from authz_server.operations.clients import create_client
from authz_server.operations.registration_tokens import create_registration_token
from authz_server.operations.scopes import import_g2p_connect
from authz_server.scopes.g2p_connect import CATALOGUE
from authz_server.scopes.models import ScopeAlias
from support.approval_site import running_approval_site
from support.parties import ACTOR

_SCOPES = """
[scopes."{n}/a"]
risk = "read"
{a}
[scopes."{n}/b"]
risk = "read"
{b}
[resource_servers.{n}-api]
name = "API"
identifier = "https://{n}.example"
scopes = ["{n}/a", "{n}/b"]
"""


@pytest.fixture(scope="module")
def granting(module_database_url: str, tmp_path_factory):
    """A site at which grants and wider limits wait."""
    acts = {"acts": ["scope.grant", "client.widen_limits"]}
    directory = tmp_path_factory.mktemp("granting")
    with running_approval_site(directory, module_database_url, acts) as site:
        yield site


def apply(site, text: str, name: str = "a.toml", **members):
    body = {"files": [{"name": name, "text": text}], **members}
    return site.api.send("POST", "/declaration", json=body)


def scopes(name: str, a: str = "", b: str = "") -> str:
    return _SCOPES.format(n=name, a=a, b=b)


def require_waits(site, answer, *acts: str) -> None:
    """Require a change of these acts, and reject it."""
    assert answer.status_code == 202, answer.text
    assert answer.json["acts"] == list(acts)
    assert site.decide(answer.json["id"], "reject").status_code == 200


def hold(site, kind: str, scope: str) -> None:
    """Give a scope to a client, or to an initial access token."""
    services = site.api.services
    if kind == "client":
        name = scope.replace("/", "-")
        create_client(services, actor=ACTOR, id=name, name=name, allowed_scopes=[scope])
    else:
        end = site.api.clock() + timedelta(days=1)
        create_registration_token(services, actor=ACTOR, expires_at=end, scopes=[scope])


@pytest.mark.parametrize("kind", ["client", "token"])
def test_an_alias_that_moves_to_a_granted_scope_waits(granting, kind):
    """In one application, and in the two that take it from one scope and give it to the other."""
    alias = f'aliases = ["{kind}:x"]'
    assert apply(granting, scopes(kind, a=alias)).status_code == 200
    hold(granting, kind, f"{kind}/b")
    require_waits(granting, apply(granting, scopes(kind, b=alias)), "scope.grant")
    require_waits(granting, apply(granting, scopes(kind)), "scope.grant")
    further = scopes(kind, a=alias, b=f'aliases = ["{kind}:y"]')
    require_waits(granting, apply(granting, further), "scope.grant")
    of_nothing = scopes(kind, a=f'aliases = ["{kind}:x", "{kind}:z"]')
    assert apply(granting, of_nothing).status_code == 200
    assert granting.api.get(f"/scopes/{kind}%3Ax").json["name"] == f"{kind}/a"


def test_a_lifetime_cap_is_not_lost_without_a_second_person(granting):
    """Neither by the removal of its scope, nor by an alias that leaves it."""
    capped = 'lifetime_cap_seconds = 60\naliases = ["capped:x"]'
    assert apply(granting, scopes("capped", a=capped)).status_code == 200
    both = ("scope.grant", "client.widen_limits")
    without_alias = scopes("capped", a="lifetime_cap_seconds = 60")
    require_waits(granting, apply(granting, without_alias), *both)
    require_waits(granting, apply(granting, scopes("capped", a='aliases = ["capped:x"]')), both[1])
    kept = granting.api.get("/declaration?format=json").json["text"]
    removed = apply(granting, _without(kept, "capped/a"), "a.json", prune=True)
    require_waits(granting, removed, *both)


def _without(text: str, scope: str) -> str:
    """Return an export as a file without a scope."""
    declared = json.loads(text)
    declared["scopes"].pop(scope)
    for server in declared["resource_servers"].values():
        server["scopes"] = [each for each in server.get("scopes", ()) if each != scope]
    return json.dumps(declared)


def test_an_import_that_gives_a_spelling_to_a_granted_scope_waits(granting):
    """It is approved as it was requested; that of a command is one to confirm."""
    services, body = granting.api.services, {"catalogue": "g2p-connect"}
    definition = next(each for each in CATALOGUE if set(each.aliases) - {each.name})
    alias = next(each for each in definition.aliases if each != definition.name)

    def lose_alias() -> None:
        with services.transaction() as session:
            session.execute(delete(ScopeAlias).where(ScopeAlias.alias == alias))

    def send():
        return granting.api.send("POST", "/scopes/imports", json=body)

    lose_alias()
    assert send().status_code == 200
    hold(granting, "client", definition.name)
    lose_alias()
    waiting = send()
    assert waiting.status_code == 202, waiting.text
    assert waiting.json["acts"] == ["scope.grant"]
    assert definition.name in waiting.json["diff"]["updated"]
    path = f"/scopes/{quote(alias, safe='')}"
    assert granting.api.get(path).status_code == 404
    approved = granting.decide(waiting.json["id"], "approve")
    assert approved.status_code == 200, approved.text
    assert granting.api.get(path).json["name"] == definition.name
    lose_alias()
    import_g2p_connect(services, actor="operator:importer")
    (done,) = granting.api.get("/changes?actor=operator:importer").json["items"]
    assert (done["operation"], done["kind"]) == ("import_g2p_connect", "command")


def test_a_change_and_a_deletion_of_a_scope_wait(granting):
    """As in a file: a spelling that leaves, a cap that goes; approved as they were requested."""
    api = granting.api
    body = {"name": "single/a", "aliases": ["single:x"], "lifetime_cap_seconds": 60}
    assert api.send("POST", "/scopes", json=body).status_code == 201
    path = "/scopes/single%2Fa"
    assert api.change("PATCH", path, {"risk": "read"}).status_code == 200
    both = ["scope.grant", "client.widen_limits"]
    for method, change, acts in (
        ("PATCH", {"aliases": []}, both),
        ("PATCH", {"lifetime_cap_seconds": None}, both[1:]),
        ("DELETE", None, both),
    ):
        waiting = api.change(method, path, change)
        assert waiting.status_code == 202, waiting.text
        assert waiting.json["acts"] == acts
        assert api.get(path).json["aliases"] == ["single:x"]
        approved = granting.decide(waiting.json["id"], "approve")
        assert approved.status_code == 200, approved.text
        if change is not None:
            assert api.get(path).json[next(iter(change))] in ([], None)
            again = api.change("PATCH", path, {name: body[name] for name in change})
            assert again.status_code == 200, again.text
    assert api.get(path).status_code == 404


def test_a_change_of_a_scope_rests_on_what_was_shown(granting):
    """Another change meanwhile: the approval is refused, and nothing is done."""
    api = granting.api
    body = {"name": "stale/a", "aliases": ["stale:x"]}
    assert api.send("POST", "/scopes", json=body).status_code == 201
    waiting = api.change("PATCH", "/scopes/stale%2Fa", {"aliases": []})
    assert waiting.status_code == 202
    assert api.change("PATCH", "/scopes/stale%2Fa", {"description": "New"}).status_code == 200
    assert granting.decide(waiting.json["id"], "approve").status_code == 412
    assert granting.state(waiting.json["id"]) == "failed"
    assert api.get("/scopes/stale%2Fa").json["aliases"] == ["stale:x"]
