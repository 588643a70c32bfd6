"""Sessions: the cookie, their ends, and requests that another site makes a browser send."""

import re
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest
from sqlalchemy import func, select

from authz_server.admin.people.cookies import COOKIE
from authz_server.admin.people.guards import local_path
from authz_server.admin.people.log_ins import LogIns
from authz_server.admin.people.refusals import LogInRefusedError
from authz_server.admin.people.sessions import Person, RequestFacts
from authz_server.admin.problems import Problem
from authz_server.app import EXTENSION
from authz_server.assembly.operator import operator_services
from authz_server.database.operator_sessions import OperatorLogIn, OperatorSession, purge_sessions
from authz_server.operations.operators import (
    delete_operator,
    set_operator_enabled,
    update_operator,
)
from support.parties import ACTOR
from support.people_site import URL, Visitor, running_people_site


@pytest.fixture
def visitor(people) -> Visitor:
    """The browser of an operator who has enrolled, and is logged in."""
    return people.enrolled()


def test_the_cookie_is_of_the_host_alone_and_out_of_reach_of_scripts(people):
    """Case H95."""
    answer = Visitor(people).get("/login")
    (cookie,) = answer.headers.getlist("Set-Cookie")
    value, *attributes = cookie.split("; ")
    assert re.fullmatch(rf"{COOKIE}=[A-Za-z0-9_-]{{43}}", value)
    assert COOKIE.startswith("__Host-")
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Lax", "Secure"]


def test_every_page_forbids_frames_scripts_of_others_and_copies(people, visitor):
    """Case H95."""
    _, link = people.new_operator()
    pages = ["/login?step_up=1", link, "/passkeys", "/enrol/x", "/login/openid"]
    for answer in [visitor.get(path) for path in pages]:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert not re.search(r"<script(?! src=)|\son\w+=|style=", answer.text)


def test_the_tables_hold_neither_the_id_nor_the_token(people, visitor):
    secrets = {visitor.cookie, visitor.token()}
    services = people.apps[0].extensions[EXTENSION]
    with services.database.reading() as session:
        for table in (OperatorSession, OperatorLogIn):
            for row in session.execute(select(table.__table__)):
                assert not any(secret in str(tuple(row)) for secret in secrets)
    assert visitor.cookie not in people.audit_path.read_text()


def test_a_log_in_and_a_confirmation_give_a_new_id(people, visitor):
    """Session fixation."""
    before = visitor.cookie
    began = visitor.caller().authenticated_at
    people.clock.advance(60)
    assert visitor.log_in(step_up=True).status_code == 200
    assert visitor.cookie != before
    assert visitor.caller().authenticated_at > began
    assert people.records("operator.signed_in")[-1]["again"] is True
    old = Visitor(people)
    old.cookie = before
    assert old.caller() is None
    # An id that somebody else has put into the browser becomes nothing by a log-in.
    planted = Visitor(people)
    planted.get("/login")
    visitor.log_out()
    visitor.cookie = planted.cookie
    visitor.log_in()
    assert visitor.caller() is not None
    assert planted.caller() is None


def test_a_session_is_confirmed_by_its_own_operator_alone(people, visitor):
    other = people.enrolled()
    visitor.authenticator = other.authenticator
    answer = visitor.log_in(step_up=True)
    assert answer.status_code == 403
    assert people.records("operator.sign_in_refused")[-1]["reason"] == "other_person"
    assert visitor.caller().name == visitor.name
    # Without the wish to confirm, it is a log-in of the other operator.
    assert visitor.log_in().status_code == 200
    assert visitor.caller().name == other.name


def test_a_session_ends_without_requests_and_at_last(people, visitor):
    people.clock.advance(899)
    assert visitor.caller() is not None
    assert visitor.caller().authenticated_at is None
    people.clock.advance(899)
    assert visitor.caller(1) is not None
    people.clock.advance(901)
    assert visitor.caller() is None
    assert people.records("operator.session_ended")[-1]["reason"] == "idle"
    visitor.log_in()
    for _ in range(36):
        people.clock.advance(799)
        assert visitor.caller() is not None
    # A confirmation does not make it longer.
    visitor.log_in(step_up=True)
    people.clock.advance(36)
    assert visitor.caller() is None
    record = people.records("operator.session_ended")[-1]
    assert (record["reason"], record["operator"]) == ("absolute", visitor.name)
    assert visitor.caller() is None
    assert people.records("operator.session_ended")[-1] == record


def test_a_disabled_operator_is_out_at_once_everywhere(people, visitor):
    people.enrolled()
    again = Visitor(people, worker=1)
    again.authenticator = visitor.authenticator
    again.log_in()
    assert visitor.caller() is not None
    assert again.caller() is not None
    with operator_services(people.settings) as services:
        set_operator_enabled(services, visitor.name, actor=ACTOR, enabled=False)
    assert visitor.caller() is None
    assert again.caller() is None
    answer = visitor.log_in()
    assert answer.status_code == 403
    assert people.records("operator.sign_in_refused")[-1]["reason"] == "operator_disabled"
    with operator_services(people.settings) as services:
        set_operator_enabled(services, visitor.name, actor=ACTOR, enabled=True)
    assert visitor.log_in().status_code == 200
    with operator_services(people.settings) as services:
        delete_operator(services, visitor.name, actor=ACTOR)
    assert visitor.caller() is None


def test_a_session_has_the_present_roles(people):
    visitor = people.enrolled("auditor")
    assert "audit:read" in visitor.caller().permissions
    with operator_services(people.settings) as services:
        update_operator(services, visitor.name, actor=ACTOR, roles=())
    assert visitor.caller().permissions == frozenset()


def test_an_officer_ends_the_sessions_of_another_person(people, visitor):
    """On every node; a person of the provider has no row that could be disabled."""
    other, officer = people.enrolled("auditor"), visitor.caller()
    guest = Person(name="ada (p-1)", method="openid", issuer="https://x.example", subject="p-1")
    with people.apps[0].extensions[EXTENSION].database.transaction() as session:
        sessions = people.people._sessions  # noqa: SLF001 - there is no provider here
        sessions.begin(session, guest, before=None, facts=RequestFacts("a", "127.0.0.1"))

    def log_out(name: str):
        path = f"/operators/{quote(name)}/log-out"
        return people.apps[1].api.perform(officer, "POST", path, body={})

    assert [log_out(name).body["sessions"] for name in (other.name, "ada (p-1)")] == [1, 1]
    assert other.caller(0) is other.caller(1) is None
    assert visitor.caller() is not None
    assert (log_out(other.name).body["sessions"], log_out("ada (p-1)").status) == (0, 404)
    record = people.records("operator.changed")[-1]
    assert (record["action"], record["operator"]) == ("operator.sessions_ended", other.name)


def test_one_person_is_logged_out_at_a_time(people, visitor):
    """A local operator before a person of the provider with that sub; the id where names agree."""
    local, officer, issuer = people.enrolled("auditor"), visitor.caller(), "https://x.example"
    guests = (
        Person(name=f"Guest ({local.name})", method="openid", issuer=issuer, subject=local.name),
        Person(name="twin", method="openid", issuer=issuer, subject="twin"),
        Person(name="Twin (twin)", method="openid", issuer="https://y.example", subject="twin"),
        Person(name=visitor.name, method="openid", issuer=issuer, subject="same-name"),
        Person(name="of-two", method="openid", issuer=issuer, subject="two-1"),
        Person(name="of-two", method="openid", issuer=issuer, subject="two-2"),
    )
    with people.apps[0].extensions[EXTENSION].database.transaction() as session:
        sessions = people.people._sessions  # noqa: SLF001 - there is no provider here
        for guest in guests:
            sessions.begin(session, guest, before=None, facts=RequestFacts("a", "127.0.0.1"))

    def log_out(name: str):
        path = f"/operators/{quote(name)}/log-out"
        done = people.apps[1].api.perform(officer, "POST", path, body={})
        return done.body if done.status == 200 else (done.status, done.body["detail"])

    done = log_out(local.name)
    assert (done["operator"], done["sessions"]) == (local.name, 1)
    assert local.caller() is None
    for named, subject in ((visitor.name, "same-name"), ("of-two", "two-1")):
        status, detail = log_out(named)
        assert (status, f"openid:{subject}" in detail) == (409, True)
    assert visitor.caller() is not None
    assert log_out("openid:twin")[0] == 409
    for name, operator in (
        (f"openid:{local.name}", f"Guest ({local.name})"),
        ("twin", "twin"),
        ("twin", "Twin (twin)"),
        ("openid:same-name", visitor.name),
        ("two-1", "of-two"),
        ("of-two", "of-two"),
    ):
        done = log_out(name)
        assert (done["operator"], done["sessions"]) == (operator, 1)
        assert people.records("operator.changed")[-1]["operator"] == operator


def test_to_log_out_ends_the_session_and_takes_the_cookie(people, visitor):
    """Case H95."""
    cookie = visitor.cookie
    answer = visitor.log_out()
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login")
    assert "Max-Age=0" in answer.headers["Set-Cookie"]
    visitor.cookie = cookie
    assert visitor.caller() is None
    assert people.records("operator.signed_out")[-1]["operator"] == visitor.name
    assert visitor.get("/logout").status_code == 405


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://admin.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": None, "Sec_Fetch_Site": None},
    ],
)
def test_a_form_of_another_site_is_refused(people, visitor, headers):
    token = visitor.token()
    before = len(people.records("operator.sign_in_refused"))
    answer = visitor.post("/logout", {"csrf_token": token}, **headers)
    assert answer.status_code == 403
    assert visitor.script("/login/passkey/begin", {}, token, **headers).status_code == 403
    records = people.records("operator.sign_in_refused")[before:]
    assert [each["reason"] for each in records] == ["cross_site", "cross_site"]
    environ = {
        "HTTP_COOKIE": f"{COOKIE}={visitor.cookie}",
        "HTTP_ORIGIN": headers.get("Origin", URL),
        "HTTP_SEC_FETCH_SITE": headers.get("Sec_Fetch_Site", "same-origin"),
    }
    environ = {name: value for name, value in environ.items() if value is not None}
    with pytest.raises(Problem):
        people.people.require_own_form(environ, token)
    assert visitor.caller() is not None


def test_a_form_needs_the_token_of_its_own_browser(people, visitor):
    other = people.enrolled()
    for token in ("", "x", other.token(), visitor.token()[:-1], "é"):
        assert visitor.post("/logout", {"csrf_token": token}).status_code == 403
        assert visitor.post("/passkeys/remove", {"csrf_token": token}).status_code == 403
    for token in ("", other.token()):
        assert visitor.script("/login/passkey/begin", {}, token).status_code == 403
        assert visitor.script("/passkeys/finish", {}, token).status_code == 403
    environ = {"HTTP_COOKIE": f"{COOKIE}={visitor.cookie}", "HTTP_ORIGIN": URL}
    people.people.require_own_form(environ, people.people.csrf_token(environ))
    assert visitor.caller() is not None


def test_a_cookie_that_is_not_one_of_ours_is_no_session(people, visitor):
    for cookie in ("", "x", f"{visitor.cookie}A", f"{visitor.cookie}; {COOKIE}={visitor.cookie}"):
        assert people.people.find_session({"HTTP_COOKIE": f"{COOKIE}={cookie}"}) is None
    assert people.people.find_session({}) is None
    assert people.people.csrf_token({}) == ""


@pytest.mark.parametrize(
    "elsewhere",
    [
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https:evil.example",
        "https://evil.example",
        "https:/evil.example",
        "///evil.example",
        "/%2Fevil.example",
        "/%5cevil.example",
        "/.//evil.example",
        "/a//evil.example",
        "/user@evil.example",
        "@evil.example",
        "javascript:alert(1)",
        "/\tevil.example",
        "/a\r\nSet-Cookie: x=y",
        "/a#//evil",
        " /a",
        "",
        "a",
        "/" + "a" * 1_000,
    ],
)
def test_a_log_in_leads_to_a_path_of_this_host(visitor, elsewhere):
    """Case H96."""
    assert local_path(elsewhere) == "/"
    assert visitor.get("/login", query_string={"next": elsewhere}).headers["Location"] == "/"
    assert visitor.log_in(to=elsewhere).json == {"next": "/"}


def test_paths_of_the_console_are_led_to():
    for path in ("/", "/clients", "/clients/a%2Fb", "/audit?q=a%20b&limit=5", "/changes/x.1/"):
        assert local_path(path) == path


def test_a_name_of_loopback_is_led_to_the_name_of_the_host(tmp_path, sqlite_url):
    with running_people_site(tmp_path, sqlite_url, {"admin": {"public_url": ""}}) as site:
        answer = Visitor(site).get("/login?next=/a", headers={"Host": "127.0.0.1:8082"})
    assert answer.headers["Location"] == "http://localhost:8082/login?next=/a"


def test_log_ins_that_only_begin_store_nothing_and_stop_nobody(people, visitor):
    """Behind a proxy all browsers may have one address."""
    services = people.apps[0].extensions[EXTENSION]
    before = count_rows(services)
    other = Visitor(people)
    token = other.token("/login")
    for _ in range(100):
        assert other.script("/login/passkey/begin", {}, token).status_code == 200
    assert count_rows(services) == before
    visitor.log_out()
    assert visitor.log_in().status_code == 200


def count_rows(services) -> tuple[int, ...]:
    """Return the numbers of sessions and of log-ins."""
    with services.database.reading() as session:
        kinds = (OperatorSession, OperatorLogIn)
        return tuple(session.scalar(select(func.count()).select_from(kind)) for kind in kinds)


def test_pages_are_in_the_language_of_the_reader(people):
    for language, text in (
        ("en", "Log in"),
        ("fr", "Se connecter"),
        ("es", "Iniciar sesión"),
        ("pt", "Iniciar sessão"),
    ):
        answer = Visitor(people).get("/login", headers={"Accept-Language": language})
        assert text in answer.text
        assert answer.headers["Content-Language"] == language


def test_ended_sessions_and_log_ins_are_purged(people, visitor):
    assert visitor.log_in().status_code == 200
    services = people.apps[0].extensions[EXTENSION]
    with services.database.transaction() as session:
        purge_sessions(session, people.clock(), 1_000)
    assert all(each >= 1 for each in count_rows(services))
    people.clock.advance(1_000)
    with services.database.transaction() as session:
        assert purge_sessions(session, people.clock(), 1_000) >= 2
    assert count_rows(services) == (0, 0)


def test_of_many_answers_at_once_one_ends_the_log_in(people):
    """Races of two tabs, workers and nodes."""
    services = [app.extensions[EXTENSION] for app in people.apps]
    log_ins = [LogIns(each) for each in services]

    def end(worker: int, token: bytes) -> bool:
        try:
            with services[worker].database.transaction() as transaction:
                log_ins[worker].end(transaction, token)
        except LogInRefusedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        for number in range(5):
            digest = number.to_bytes(32, "big")
            token = log_ins[0].begin(digest, {"number": number})
            assert log_ins[1].read(digest, token) == {"number": number}
            ended = [pool.submit(end, each % 2, token) for each in range(8)]
            assert [each.result() for each in ended].count(True) == 1


def test_a_log_in_is_of_its_browser_and_as_the_server_signed_it(people):
    log_ins = LogIns(people.apps[0].extensions[EXTENSION])
    digest = bytes(32)
    token = log_ins.begin(digest, {"again": False})
    changed = token.replace(b"false", b"true ")
    for other, presented in ((bytes(31) + b"x", token), (digest, changed), (digest, b"")):
        with pytest.raises(LogInRefusedError, match="log_in_over") as refused:
            log_ins.read(other, presented)
        assert refused.value.reason == "log_in_over"
