"""Every page: who may open it, in which language, how large it is, and with which policy."""

import csv
import json
import re

import pytest
from sqlalchemy import update

from authz_server.admin.console.acts import ACTS
from authz_server.admin.console.application import PAGES
from authz_server.admin.console.languages import LANGUAGES
from authz_server.audit.models import AuditRecord
from authz_server.operations.audit.export import harmless
from authz_server.operations.permissions import Limits

_PATHS = (
    *(path for path in PAGES if path not in {"/changes/change", "/audit/export", "/files/export"}),
    "/audit?of=all&client=treasury",
    "/clients?q=treasury",
    "/clients/client?id=treasury&explain=1&scope=disburse",
    "/apis/api?id=mapper",
    "/audit?who=mapper/link&moment=2026-01-01T14:05",
    "/changes?all=1",
    "/act/client-create",
    "/act/client-disable?id=treasury",
    "/act/api-create",
    "/act/api-edit?id=mapper&name=Other&token_format=reference",
    "/act/api-secret-rotate?id=mapper&unused_days=7",
    "/act/scope-add?id=mapper",
    "/act/scope-assign-several?id=mapper&scopes=mapper/*",
    "/act/stop-set?kind=scope&subject=mapper/link",
    "/act/operator-edit?operator=grace",
    "/act/client-limits?id=treasury",
    "/act/client-keys?id=treasury",
    "/act/registration-create",
    "/act/stream-set?id=mapper&delivery=poll",
    "/act/scope-edit?scope=mapper/link",
    "/settings?all=1",
)
_WITH_SUBJECT = {
    "/clients/client": "?id=treasury",
    "/apis/api": "?id=mapper",
    "/apis/scope": "?name=mapper/link",
    "/operators/operator": "?name=grace",
}
_MAXIMUM_BYTES = 60_000


def _full(path: str) -> str:
    return path + _WITH_SUBJECT.get(path, "")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_in_every_language(console, language):
    """It is complete HTML below 60 kB, in its language, without inline script or style."""
    for path in map(_full, _PATHS):
        answer = console.get(path, **{"Accept-Language": language})
        assert answer.status_code == 200, f"{path}: {answer.text}"
        text = answer.text
        assert f'<html lang="{language}">' in text
        assert text.rstrip().endswith("</html>")
        assert len(answer.data) < _MAXIMUM_BYTES, path
        assert not re.search(r"<style|style=|<script(?! src=\"/static/)|\son[a-z]+=", text), path
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Language"] == language
        for link in re.findall(r'(?:href|src|action)="([^"]+)"', text):
            assert link.startswith(("/", "#")), link


def test_without_a_session_every_page_leads_to_the_log_in(console):
    """All alike, whether there is something at the address or not, and nothing is read."""
    paths = [*PAGES, *(f"/act/{name}" for name in ACTS), "/act/nothing", "/clients/client?id=x"]
    for path in paths:
        answer = console.get(path, session=False)
        assert answer.status_code == 303, path
        assert answer.headers["Location"].startswith("/login?next=%2F"), path
        assert answer.data == b""
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    for path in ("/tokens", *(f"/act/{name}" for name in ACTS)):
        answer = console.post(path, {"csrf_token": "x"}, session=False)
        assert answer.status_code == 303, path
        assert answer.headers["Location"].startswith("/login?next=%2F"), path


def test_a_page_that_the_operator_may_not_see_is_refused(console):
    """The screen is not linked, and the API refuses its address."""
    with console.acting_as(console.operator("keys:read")):
        text = console.page("/")
        assert 'href="/keys"' in text
        assert 'href="/clients"' not in text
        for path in ("/clients", "/clients/client?id=treasury", "/audit", "/changes"):
            answer = console.get(path)
            assert answer.status_code == 403, path
            assert "You do not have the permission for this." in answer.text
            assert "Treasury" not in answer.text
        assert console.get("/keys").status_code == 200


def test_acts_that_the_operator_may_not_do_are_not_shown(console):
    """An auditor sees everything and changes nothing."""
    reads = ("clients:read", "scopes:read", "resource-servers:read", "keys:read", "audit:read")
    with console.acting_as(console.operator(*reads)):
        for path in (
            "/clients",
            "/clients/client?id=treasury",
            "/apis",
            "/keys",
            "/apis/api?id=mapper",
        ):
            assert 'href="/act/' not in console.page(path), path
        for act in ACTS.values():
            if not set(reads).isdisjoint(act.permissions):
                continue
            given = "&".join(f"{name}=x" for name in act.names)
            assert console.get(f"/act/{act.name}?{given}").status_code == 404, act.name
            fields = dict.fromkeys(act.names, "x") | {"csrf_token": "the-token"}
            assert console.post(f"/act/{act.name}", fields).status_code == 404, act.name


def test_an_operator_with_limits_sees_a_part(console):
    """The clients of the organisation alone; pages ask for nothing that is refused."""
    limits = Limits(organisations=frozenset({"Ministry"}))
    reads = ("clients:read", "scopes:read", "resource-servers:read", "audit:read", "changes:read")
    console.site.new_client("Elsewhere", id="elsewhere", organisation="Other")
    before = console.site.audit_path.read_text().count("request.refused")
    with console.acting_as(console.operator(*reads, limits=limits)):
        assert "Treasury" in console.page("/clients")
        for path in ("/", "/clients", "/apis", "/audit", "/changes", "/clients/client?id=treasury"):
            assert "lsewhere" not in console.page(path), path
        assert console.get("/clients/client?id=elsewhere").status_code == 404
    assert console.site.audit_path.read_text().count("request.refused") == before


def test_a_chosen_language_is_kept_in_a_cookie(console):
    """The links of the footer choose it; the address of the page stays."""
    text = console.page("/clients?q=treasury&lang=pt")
    assert '<html lang="pt">' in text
    assert 'href="/clients?q=treasury&amp;lang=fr"' in text
    answer = console.get("/?lang=es")
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("authz_console_language=es;")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    kept = console.client.get("/", headers={"Cookie": "session=held; authz_console_language=es"})
    assert '<html lang="es">' in kept.text
    assert "Set-Cookie" not in console.get("/?lang=xx").headers
    assert console.get("/clients?path=x&self=y").status_code == 200


def test_the_static_files_are_cached_with_a_tag(console):
    """Without a session, since the log-in uses them."""
    for name in ("console.css", "calendar.css", "console.js", "icon.svg"):
        answer = console.get(f"/static/{name}", session=False)
        assert answer.status_code == 200
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        again = console.get(
            f"/static/{name}", session=False, **{"If-None-Match": answer.headers["ETag"]}
        )
        assert again.status_code == 304
    assert console.get("/static/nothing.css", session=False).status_code == 404


def test_a_misspelled_scope_is_named(console):
    """The page does not merely say that no client could."""
    sentence = "The catalogue does not have this scope"
    for scope, said in (("mapper/link", False), ("maper/link", True)):
        answer = console.get(f"/audit?who={scope}&moment=2026-01-01T14:05")
        assert (sentence in answer.text) is said


def test_an_unknown_item_is_a_page(console):
    """With the words of the API."""
    answer = console.get("/clients/client?id=nothing")
    assert answer.status_code == 404
    assert "There is nothing at this address." in answer.text
    assert console.get("/clients?cursor=abc").status_code == 400
    assert console.get("/clients?state=odd").status_code == 400
    assert console.get("/audit?since=odd").status_code == 400
    assert console.get("/audit?who=disburse&moment=odd").status_code == 400
    assert console.get("/clients/client?id=a%00b").status_code == 404


@pytest.mark.parametrize(("method", "path"), [("GET", "/nothing"), ("PUT", "/clients")])
def test_an_unknown_address_is_a_page_for_a_browser(console, method, path):
    """In its language; for a program it is a problem."""
    headers = {"Accept": "text/html,*/*;q=0.8", "Accept-Language": "fr"}
    answer = console.client.open(path, method=method, headers=headers)
    assert answer.status_code in {404, 405}
    assert "Il n&#39;y a rien à cette adresse." in answer.text
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    answer = console.client.open(path, method=method, headers={"Accept": "*/*"})
    assert answer.content_type == "application/problem+json"


def test_a_filter_that_is_refused_stays_in_its_form(console):
    """It is corrected where it was entered."""
    for query in ("scope=mapper/lnik", "state=odd"):
        answer = console.get(f"/clients?{query}&q=treasury")
        assert answer.status_code in {400, 404}
        assert 'role="alert"' in answer.text
        assert 'value="treasury"' in answer.text


@pytest.mark.parametrize(
    "query", ["q=%20Treasury%20", "scope=mapper/link%09", "organisation=%20Ministry"]
)
def test_spaces_around_what_was_pasted_are_left_out(console, query):
    """In every filter."""
    assert "/clients/client?id=treasury" in console.page(f"/clients?{query}")


@pytest.mark.parametrize(
    ("language", "words"),
    [("en", "stands by"), ("fr", "en attente"), ("es", "en espera"), ("pt", "à espera")],
)
def test_the_picture_of_a_calendar_is_in_the_language_of_the_page(console, language, words):
    """With its times, its plans and its text for a screen reader."""
    page = console.page(f"/keys?lang={language}")
    (picture,) = re.findall(r"<svg [^>]*viewBox=\"0 0 1080.*?</svg>", page, re.DOTALL)
    assert f'lang="{language}"' in picture
    assert f"v2  {words}" in picture
    assert ("now, " in picture) == ("stands by" in picture) == (language == "en")


def test_an_act_on_the_screen_of_keys_says_of_which_ring(console):
    """Its words are the same for every ring; a screen reader may read them alone."""
    links = re.findall(r'<a [^>]*href="/act/[^"]*ring=(\w+)[^"]*">(.*?)</a>', console.page("/keys"))
    assert len(links) > 2
    for ring, words in links:
        assert f" {ring}" in words


def test_the_screens_answer_their_questions(console):
    """Tokens and keys now; the last token of a client; who may call what."""
    now = console.page("/")
    assert "Needs you" in now
    assert "invalid_scope" in now or "scope" in now
    client = console.page("/clients/client?id=treasury")
    assert "mapper/link" in client
    assert "Client registered" in client
    assert "Tokens of the last 24 hours" in client
    explained = console.page("/clients/client?id=treasury&explain=1&scope=mapper/link")
    assert "A token would be issued." in explained
    refused = console.page("/clients/client?id=treasury&explain=1&scope=search")
    assert "The request would be refused with invalid_scope (400)." in refused
    assert "Treasury" in console.page("/apis/api?id=mapper")
    assert "<svg" in console.page("/keys")


def test_stopped_clients_are_marked_in_every_list(console):
    """Also those of a stopped programme, in the matrix of an API as well."""
    client = console.site.new_client("Marked")["id"]
    pages = (f"/clients?q={client}", "/apis/api?id=mapper")
    marked = '<span class="chip is-state-expired">stopped</span>'
    assert all(marked not in console.page(path) for path in pages)
    body = {"name": "marked", "clients": [client]}
    assert console.site.send("POST", "/programmes", json=body).status_code == 200
    stop = {"kind": "programme", "subject": "marked", "reason": "INC-17"}
    assert console.site.send("POST", "/stops", json=stop).status_code == 201
    assert all(marked in console.page(path) for path in pages)
    (found,) = console.site.get(f"/clients?q={client}").json["items"]
    assert found["stopped_by"] == "programme marked"
    lift = "/stops/programme/marked"
    assert (
        console.site.change("POST", f"{lift}/lift", {"reason": "x"}, item=lift).status_code == 200
    )


def test_a_token_is_explained_and_stored_nowhere(console):
    """By the API that it is for; the answer is neither cached nor in an address."""
    token = console.site.new_token(
        "mapper/link", client="treasury", resource="https://mapper.example"
    )
    answer = console.post("/tokens", {"csrf_token": "the-token", "token": f" {token}\n"})
    assert answer.status_code == 200
    assert "Active" in answer.text
    assert "treasury" in answer.text
    assert token not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert token not in console.site.audit_path.read_text()
    foreign = console.post("/tokens", {"csrf_token": "the-token", "token": "a.b.c"})
    assert "Inactive" in foreign.text
    assert console.post("/tokens", {"csrf_token": "odd", "token": token}).status_code == 403


def test_records_are_exported_with_the_filters_of_the_page(console):
    """As CSV, in which no cell is a formula, and as JSON Lines; another form is not found."""
    console.site.new_client("=1+1", id="formula")
    lines = console.get("/audit/export?format=jsonl&subject=formula")
    assert lines.headers["Content-Disposition"].startswith('attachment; filename="audit-')
    records = [json.loads(line) for line in lines.text.splitlines()]
    assert {record["subject"] for record in records} == {"formula"}
    exported = console.get("/audit/export?format=csv&subject=formula")
    assert exported.content_type == "text/csv; charset=utf-8"
    rows = list(csv.reader(exported.text.splitlines()))
    assert rows[0] == ["id", "at", "action", "actor", "subject", "detail"]
    assert len(rows) == len(records) + 1
    for odd in ("=1+1", "+1", "-1", "@x"):
        assert harmless(odd) == f"'{odd}"
        # The cells of a spreadsheet may be separated by semicolons.
        assert harmless(f"operator:a; {odd}") == f"operator:a; '{odd}"
    assert console.get("/audit/export?format=odd").status_code == 404
    assert "Export as CSV" in console.page("/audit?verify=1")


@pytest.mark.parametrize("detail", [5, [], ["a"], "a", None], ids=repr)
def test_an_altered_record_hides_no_other(console, detail):
    """Its detail is shown as it is; `audit verify` names it."""
    made = console.site.new_client("Altered")["id"]
    with console.site.services.database.transaction() as session:
        session.execute(
            update(AuditRecord).where(AuditRecord.subject == made).values(detail=detail)
        )
    for query in (f"subject={made}", f"subject={made}&of=all"):
        assert made in console.page(f"/audit?{query}")
    assert f'""detail"":{json.dumps(detail)}'.replace('"a"', '""a""') in console.page(
        f"/audit/export?format=csv&subject={made}"
    )
