"""Declarative files by the admin API: the plan, the application, the export, and who may."""

import json
from io import BytesIO

import pytest
from sqlalchemy import text as sql
from werkzeug.test import create_environ

from authz_server.admin.resources.declarations import MAXIMUM_IMPORTS
from authz_server.operations.declarative.apply import apply_declaration
from authz_server.operations.declarative.document import SourceFile, parse_declaration
from authz_server.operations.stored_records import RecordFilters, list_records
from support.admin_site import require_problem
from support.parties import ACTOR

PATH = "/declaration"
WRITES = ("clients:write", "resource-servers:write", "scopes:write")
WHOLE = """
[scopes."{n}/read"]
risk = "read"

[resource_servers.{n}-api]
name = "API"
identifier = "https://{n}.example"
scopes = ["{n}/read"]

[clients.{n}]
name = "Ministry"
allowed_scopes = ["{n}/read"]
"""


def of_clients(name: str, *scopes: str, **fields: object) -> str:
    members = {"name": name, "allowed_scopes": scopes, **fields}
    lines = (f"{key} = {json.dumps(value)}" for key, value in members.items())
    return "\n".join((f"[clients.{name}]", *lines, ""))


def apply(site, text: str, *, query: str = "", token: str | None = None, **members):
    body = {"files": [{"name": "a.toml", "text": text}], **members}
    return site.send("POST", f"{PATH}{query}", json=body, token=token)


def test_files_are_planned_applied_and_exported(site):
    """The plan has a revision, which the application expects; a second one changes nothing."""
    text = WHOLE.format(n="whole")
    planned = apply(site, text, query="?dry_run=true", generate_secrets=True)
    assert planned.status_code == 200, planned.text
    plan = planned.json
    assert [(each["act"], each["noun"], each["id"]) for each in plan["changes"]] == [
        ("add", "scope", "whole/read"),
        ("add", "resource server", "whole-api"),
        ("add", "client", "whole"),
    ]
    assert plan["diff"]["client whole"]["after"]["name"] == "Ministry"
    assert "secrets" not in plan
    assert site.get("/clients/whole").status_code == 404
    done = apply(site, text, generate_secrets=True, expected=plan["revision"])
    assert done.status_code == 200, done.text
    assert done.json["changes"] == plan["changes"]
    assert done.json["secrets"].keys() == {"whole", "whole-api"}
    site.secrets["whole"] = done.json["secrets"]["whole"]
    again = apply(site, text, expected=plan["revision"])
    require_problem(again, 409, "conflict")
    assert apply(site, text).json["changes"] == []
    exported = site.get(PATH).json
    assert exported["format"] == "toml"
    assert "[clients.whole]" in exported["text"]
    assert site.secrets["whole"] not in exported["text"]
    assert apply(site, exported["text"], prune=True).json["changes"] == []
    assert "whole" in json.loads(site.get(f"{PATH}?format=json").json["text"])["clients"]


def test_what_the_files_do_not_have_is_removed(site):
    """In the sections that they have; another client is left out of it by an export before."""
    apply(site, of_clients("pruned", "mapper/link"))
    text = site.get(PATH).json["text"]
    begin = text.index("[clients.pruned]")
    following = text.find("[clients.", begin + 1)
    without = text[:begin] + (text[following:] if following > 0 else "")
    planned = apply(site, without, query="?dry_run=true", prune=True).json
    assert [(each["act"], each["id"]) for each in planned["changes"]] == [("remove", "pruned")]
    assert apply(site, without).json["changes"] == []
    assert apply(site, without, prune=True).json["diff"]["client pruned"]["after"] is None
    assert site.get("/clients/pruned").status_code == 404


def test_an_imported_secret_is_stored(site):
    """The client authenticates with it, and it is in no answer."""
    secret = "an-imported-secret-0123456789"
    text = of_clients("brought", "mapper/link", authentication_method="client_secret_post")
    done = apply(site, text, imported_secrets={"brought": secret}, generate_secrets=True)
    assert done.json["changes"][0]["secret"] == "imported"
    assert secret not in done.text
    (stored,) = site.get("/clients/brought/secrets").json["items"]
    assert stored["imported"]


def test_secrets_are_hashed_while_others_can_write(site, monkeypatch):
    """Before the transaction, by both ways; as many as the limit are accepted at once."""
    hash_one = site.services.secrets.import_record

    def hash_beside_a_writer(secret: bytes) -> str:
        with site.services.database.transaction() as session:
            session.execute(sql("SELECT 1"))
        return hash_one(secret)

    monkeypatch.setattr(site.services.secrets, "import_record", hash_beside_a_writer)
    file = of_clients("hashed", "mapper/link")
    done = apply(site, file, imported_secrets={"hashed": "s" * 30, "unknown": "s" * 30})
    assert done.json["changes"][0]["secret"] == "imported", done.text
    # That of a registered client is not stored.
    names = [f"hashed-{number}" for number in range(MAXIMUM_IMPORTS)]
    several = "".join(of_clients(name, "mapper/link") for name in (*names, "hashed"))
    given = dict.fromkeys((*names, "hashed"), "s" * 30)
    planned = apply(site, several, query="?dry_run=true", imported_secrets=given)
    assert planned.status_code == 200, planned.text
    several += of_clients("hashed-more", "mapper/link")
    for query in ("", "?dry_run=true"):
        refused = apply(
            site, several, query=query, imported_secrets={**given, "hashed-more": "s" * 30}
        )
        problem = require_problem(refused, 422, "invalid-value")
        assert problem["field"] == "imported_secrets"
    short = apply(site, of_clients("short", "mapper/link"), imported_secrets={"short": "s"})
    detail = require_problem(short, 422, "invalid-value")["detail"]
    assert detail.startswith("a.toml")
    assert "secret: it must have" in detail


def test_one_call_runs_at_a_time(site):
    """Another one is refused with the time to repeat it; other requests are answered."""
    with site.app.api.lone_calls.one():
        for refused in (apply(site, of_clients("later", "mapper/link")), site.get(PATH)):
            require_problem(refused, 503, "unavailable")
            assert int(refused.headers["Retry-After"]) > 0
        assert site.get("/clients/caller").status_code == 200
    assert site.get(PATH).status_code == 200


def test_a_repeated_application_answers_the_revision(site):
    """And where secrets come from, as they are not shown again; a dry run takes no key."""

    def send(body: dict, query: str = ""):
        headers = {"Idempotency-Key": "one application"}
        return site.send("POST", f"{PATH}{query}", json=body, headers=headers)

    file = {"name": "a.toml", "text": of_clients("again", "mapper/link")}
    body = {"files": [file], "generate_secrets": True}
    assert send(body, "?dry_run=true").json["changes"]
    done, repeated = send(body), send(body)
    assert (done.status_code, repeated.status_code) == (200, 200)
    assert "repeated" not in done.json
    assert repeated.json["repeated"]
    assert repeated.json["revision"] == done.json["revision"]
    assert repeated.json["digest"] == done.json["digest"]
    assert repeated.json["secret_hint"].startswith("Generated secrets (1) were shown once")
    assert "secrets" not in repeated.json
    assert len(site.get("/clients/again/secrets").json["items"]) == 1
    reused = send({"files": [{**file, "text": "[clients]"}]})
    require_problem(reused, 422, "idempotency-key-reused")


def test_a_large_body_without_a_caller_is_not_read(site):
    """Under any WSGI server."""

    class Unread(BytesIO):
        def read(self, *_: object) -> bytes:
            raise AssertionError

    environ = create_environ("/admin/v1/declaration", method="POST", input_stream=Unread())
    environ |= {"CONTENT_LENGTH": "2000000", "REMOTE_ADDR": "127.0.0.1"}
    assert site.app.api.respond(environ, "/admin/v1/declaration").status == 401


def test_the_records_are_those_of_the_command_on_the_server(site):
    """Apart from the actor and the names."""
    local, remote = (WHOLE.format(n=name) for name in ("here", "away"))
    declaration = parse_declaration([SourceFile(name="a.toml", text=local)])
    apply_declaration(site.services, declaration, actor=ACTOR)
    seen = [_newest(site, ACTOR)]
    assert apply(site, remote).status_code == 200
    seen.append(_newest(site, "client:caller via api"))
    plain = [
        [
            (each.action, each.subject.replace(name, "N"), _text(each.detail).replace(name, "N"))
            for each in records
            if len(each.subject) < 64
        ]
        for name, records in zip(("here", "away"), seen, strict=True)
    ]
    assert plain[0] == plain[1]
    assert len(plain[0]) >= 3


def _newest(site, actor: str):
    """Return the records of an actor since the last application before this one."""
    records = list_records(site.services, RecordFilters(actor=actor), before=None, limit=20)
    assert records[0].action == "declaration.applied"
    found = []
    for each in records[1:]:
        if each.detail.get("declaration") != records[0].subject:
            break
        found.append(each)
    return found


def _text(detail: dict) -> str:
    return json.dumps({**detail, "declaration": ""}, default=str, sort_keys=True)


def test_each_section_needs_its_permission(site):
    """A section that the files have, though it changes nothing; a catalogue is of the scopes."""
    text = WHOLE.format(n="permitted")
    for missing in WRITES:
        token = site.token(*(each for each in WRITES if each != missing))
        refused = apply(site, text, token=token, query="?dry_run=true")
        assert require_problem(refused, 403, "insufficient-scope")["scope"] == missing
    token = site.token("clients:write")
    refused = apply(site, 'catalogues = ["g2p-connect"]', token=token)
    assert require_problem(refused, 403, "insufficient-scope")["scope"] == "scopes:write"
    assert apply(site, of_clients("own", "mapper/link"), token=token).status_code == 200
    for missing in ("clients:read", "resource-servers:read", "scopes:read"):
        rest = {"clients:read", "resource-servers:read", "scopes:read"} - {missing}
        refused = site.get(PATH, token=site.token(*sorted(rest)))
        assert require_problem(refused, 403, "insufficient-scope")["scope"] == missing


def test_files_give_no_power_that_the_caller_lacks(site):
    """Neither to a new client, nor to one that has it, by a change, a removal or a secret."""
    token = site.token("clients:write")
    for text, members in (
        (of_clients("new-power", "keys:revoke"), {}),
        (of_clients("caller", "mapper/link"), {}),
        (of_clients("dpop-caller", "mapper/link", enabled=False), {}),
        (of_clients("alone", "mapper/link"), {"prune": True}),
    ):
        refused = apply(site, text, token=token, **members)
        assert (
            "scopes that the caller does not have"
            in require_problem(refused, 403, "refused")["detail"]
        )
    assert site.get("/clients/new-power").status_code == 404
    assert site.get("/clients/alone").status_code == 404


@pytest.mark.parametrize(
    ("members", "field", "detail"),
    [
        ({"files": []}, "files", "length"),
        ({"files": [{"name": "a", "text": ""}] * 101}, "files", "length"),
        ({"files": [{"name": "a\n", "text": ""}]}, "files[0]", "printable"),
        ({"files": [{"name": "a", "text": "[clients"}]}, None, "a: it is not TOML"),
        ({"files": [{"name": "a", "text": "format = 1"}]}, None, "none of the sections"),
        ({"files": [{"name": "a.json", "text": "[]"}]}, None, "a.json: the file"),
        ({"files": [{"name": "a", "text": "\nunknown = 1"}]}, None, "a: the file"),
        ({"files": [{"name": "a", "text": "a\u0001 = 1"}]}, None, "a: it is not TOML"),
        ({"imported_secrets": {"x": 1}}, None, ""),
        ({"colour": 1}, None, ""),
    ],
    ids=str,
)
def test_malformed_files_are_refused_with_their_place(site, members, field, detail):
    body = {"files": [{"name": "a", "text": ""}], **members}
    problem = require_problem(site.send("POST", PATH, json=body), 422, "invalid-value")
    assert detail in problem["detail"]
    assert field in {None, problem.get("field")}


def test_a_larger_body_is_read_here_alone(site):
    """8 MiB at most; elsewhere server.maximum_body_bytes."""
    text = of_clients("large", "mapper/link") + "#" * 2_000_000
    assert apply(site, text, query="?dry_run=true").status_code == 200
    require_problem(apply(site, "#" * 8_400_000), 413, "body-too-large")
    refused = site.send("POST", "/clients", json={"name": "x" * 2_000_000, "allowed_scopes": []})
    require_problem(refused, 413, "body-too-large")
