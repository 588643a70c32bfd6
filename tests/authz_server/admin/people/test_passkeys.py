"""Passkeys: enrolment by a link, log-in, confirmation, and what is refused."""

import re
from datetime import timedelta
from hashlib import sha256

import pytest
from sqlalchemy import select

from authz_server.app import EXTENSION
from authz_server.audit.models import AuditRecord
from authz_server.operations.permissions import authorise
from support.authenticator import USER_PRESENT, Authenticator, encode
from support.people_site import URL, Visitor, running_people_site


@pytest.fixture
def visitor(people) -> Visitor:
    """The browser of an operator who has enrolled, and is logged in."""
    return people.enrolled()


def ids_of(people, visitor: Visitor, action: str) -> list[dict]:
    """Return the ids in the diffs of the stored records of an action."""
    rows = select(AuditRecord).where(
        AuditRecord.action == action, AuditRecord.subject == visitor.name
    )
    with people.apps[0].extensions[EXTENSION].database.reading() as session:
        return [each.detail["diff"]["id"] for each in session.scalars(rows)]


def refusal(answer, people, status: int, reason: str) -> None:
    """Check a refusal: its status, its sentence and its record."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    record = people.records("operator.sign_in_refused")[-1]
    assert (record["reason"], record["outcome"]) == (reason, "refused")
    assert record["request_id"] == answer.headers["X-Request-Id"]
    assert record["source_address"] == "127.0.0.1"


def test_a_link_shows_a_page_and_is_used_by_the_registration_alone(people):
    name, path = people.new_operator()
    visitor = Visitor(people)
    for _ in range(2):
        assert name in visitor.get(path).text
    answer = visitor.enrol(path)
    assert (answer.status_code, answer.json) == (200, {"next": "/"})
    caller = visitor.caller()
    assert (caller.name, caller.kind, caller.way) == (name, "operator", "console")
    assert caller.authenticated_at == people.clock()
    authorise(caller, "keys:rotate", now=people.clock())
    # The link shows nothing afterwards, to this browser or another one.
    for other in (visitor, Visitor(people)):
        refusal(other.get(path), people, 403, "link_used")
    token = visitor.token()
    refusal(visitor.script(f"{path}/begin", {}, token), people, 403, "link_used")
    record = people.records("operator.sign_in_refused")[-1]
    assert record["path"] == "/enrol"
    assert path.removeprefix("/enrol/") not in people.audit_path.read_text()


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_log_in_is_of_the_databases_present(tmp_path, postgresql_url, database_clock, hours):
    """On a node an hour ahead it would otherwise stay fresh for an hour more, behind never be."""
    with running_people_site(tmp_path, postgresql_url) as site:
        database_clock.set_ahead(hours * 3_600)
        for app in site.apps:
            app.extensions[EXTENSION].key_rings.refresh()
        at = site.enrolled().caller().authenticated_at
        assert at is not None
        assert abs(at - site.clock() - timedelta(hours=hours)) < timedelta(minutes=1)


def test_of_two_registrations_by_one_link_one_counts(people):
    _, path = people.new_operator()
    visitors = [Visitor(people, worker=worker) for worker in range(2)]
    begun = []
    for visitor in visitors:
        token = visitor.token(path)
        begun.append((token, visitor.authenticator.create(visitor.options(f"{path}/begin", token))))
    answers = [
        visitor.script(f"{path}/finish", {"credential": credential}, token)
        for visitor, (token, credential) in zip(visitors, begun, strict=True)
    ]
    assert [each.status_code for each in answers] == [200, 403]
    assert [each.caller() is not None for each in visitors] == [True, False]


def test_a_link_ends_after_a_quarter_of_an_hour_and_with_a_further_link(people):
    name, path = people.new_operator()
    people.clock.advance(900)
    refusal(Visitor(people).get(path), people, 403, "link_used")
    first, second = people.new_link(name), people.new_link(name)
    refusal(Visitor(people).get(first), people, 403, "link_used")
    assert Visitor(people).enrol(second).status_code == 200
    refusal(Visitor(people).get("/enrol/unknown"), people, 403, "link_used")


def test_a_passkey_logs_in_at_any_worker(people, visitor):
    visitor.log_out()
    assert visitor.caller() is None
    visitor.worker = 1
    answer = visitor.log_in(to="/clients?q=a")
    assert (answer.status_code, answer.json) == (200, {"next": "/clients?q=a"})
    assert visitor.caller(0) == visitor.caller(1) != None  # noqa: E711 - one caller for both
    record = people.records("operator.signed_in")[-1]
    assert (record["operator"], record["method"], record["again"]) == (
        visitor.caller().name,
        "passkey",
        False,
    )
    assert record["operator_id"] == visitor.caller().operator_id


def test_each_answer_to_a_challenge_counts_once_and_in_the_browser_that_asked(people, visitor):
    token = visitor.token("/login?step_up=1")
    options = visitor.options("/login/passkey/begin", token)
    credential = visitor.authenticator.get(options)
    other = Visitor(people)
    members = {"credential": credential}
    refusal(
        other.script("/login/passkey/finish", members, other.token("/login")),
        people,
        400,
        "log_in_over",
    )
    assert visitor.script("/login/passkey/finish", members, token).status_code == 200
    token = visitor.token()
    refusal(visitor.script("/login/passkey/finish", members, token), people, 400, "log_in_over")
    # A challenge that the server has not made, and one that was made for something else.
    for name in ("AAAA", visitor.options("/passkeys/begin", token)["challenge"]):
        credential = visitor.authenticator.get({"challenge": name})
        answer = visitor.script("/login/passkey/finish", {"credential": credential}, token)
        refusal(answer, people, 400, "log_in_over")
    # A challenge that is too old.
    credential = visitor.authenticator.get(visitor.options("/login/passkey/begin", token))
    people.clock.advance(601)
    answer = visitor.script("/login/passkey/finish", {"credential": credential}, token)
    refusal(answer, people, 400, "log_in_over")


@pytest.mark.parametrize(
    "client_data",
    [
        {"origin": "https://admin.example.evil"},
        {"type": "webauthn.create"},
    ],
)
def test_an_answer_for_another_site_or_purpose_is_refused(people, visitor, client_data):
    refusal(visitor.log_in(**client_data), people, 403, "passkey_refused")


def test_a_signature_must_be_right_and_the_user_verified(people, visitor):
    visitor.authenticator.flags = USER_PRESENT
    refusal(visitor.log_in(), people, 403, "passkey_refused")
    known = visitor.authenticator.passkeys[0]
    visitor.authenticator = Authenticator(URL)
    visitor.authenticator.create({"user": {"id": "AAAA"}, "challenge": "AAAA"})
    refusal(visitor.log_in(), people, 403, "passkey_unknown")
    token = visitor.token()
    forged = visitor.authenticator.get(visitor.options("/login/passkey/begin", token))
    named = {**forged, "id": _name(known), "rawId": _name(known)}
    answer = visitor.script("/login/passkey/finish", {"credential": named}, token)
    refusal(answer, people, 403, "passkey_refused")


def _name(passkey) -> str:
    return encode(passkey.id)


def test_a_counter_that_does_not_grow_is_refused(people, visitor):
    assert visitor.log_in().status_code == 200
    visitor.authenticator.passkeys[0].counter -= 1
    refusal(visitor.log_in(), people, 403, "passkey_refused")
    assert "sign count" in people.records("operator.sign_in_refused")[-1]["detail"]


def test_an_operator_keeps_several_passkeys_and_the_last_one_stays(people, visitor):
    token = visitor.token("/passkeys")
    credential = visitor.authenticator.create(visitor.options("/passkeys/begin", token))
    members = {"credential": credential, "name": "<script>\u202eكي"}
    assert visitor.script("/passkeys/finish", members, token).json == {"next": "/passkeys"}
    page = visitor.get("/passkeys").text
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert "\u202e" not in page
    for passkey in visitor.authenticator.passkeys:
        token = visitor.token()
        options = visitor.options("/login/passkey/begin", token)
        answer = visitor.authenticator.get(options, passkey)
        assert visitor.script("/login/passkey/finish", {"credential": answer}, token)
    first, second = visitor.authenticator.passkeys
    shown = [sha256(each.id).hexdigest()[:32] for each in (first, second)]
    assert set(re.findall(r'name="passkey" value="([^"]+)"', page)) == set(shown)
    fields = {"csrf_token": visitor.token("/passkeys"), "passkey": shown[0]}
    for _ in range(2):
        assert visitor.post("/passkeys/remove", fields).status_code == 303
    assert ids_of(people, visitor, "operator.passkey_removed") == [
        {"before": shown[0], "after": None}
    ]
    added = ids_of(people, visitor, "operator.passkey_added")
    assert added == [{"before": None, "after": shown[1]}]
    refusal(
        visitor.post("/passkeys/remove", {**fields, "passkey": shown[1]}),
        people,
        409,
        "last_passkey",
    )
    token = visitor.token()
    options = visitor.options("/login/passkey/begin", token)
    members = {"credential": visitor.authenticator.get(options, first)}
    refusal(visitor.script("/login/passkey/finish", members, token), people, 403, "passkey_unknown")


def test_the_removal_of_a_passkey_ends_the_sessions_of_a_lost_device(people, visitor):
    """Its thief may be logged in; the operator who removes it stays so."""
    token = visitor.token("/passkeys")
    credential = visitor.authenticator.create(visitor.options("/passkeys/begin", token))
    visitor.script("/passkeys/finish", {"credential": credential, "name": "lost"}, token)
    thief = Visitor(people, visitor.name)
    thief.authenticator = visitor.authenticator
    assert thief.log_in().status_code == 200
    assert thief.get("/passkeys").status_code == 200
    lost = sha256(visitor.authenticator.passkeys[-1].id).hexdigest()[:32]
    fields = {"csrf_token": visitor.token("/passkeys"), "passkey": lost}
    assert visitor.post("/passkeys/remove", fields).status_code == 303
    assert visitor.get("/passkeys").status_code == 200
    assert thief.get("/passkeys").headers["Location"] == "/login?next=%2Fpasskeys"


def test_a_passkey_is_added_by_a_fresh_log_in_alone(people, visitor):
    token = visitor.token("/passkeys")
    people.clock.advance(301)
    assert visitor.get("/passkeys").headers["Location"] == "/login?step_up=1&next=%2Fpasskeys"
    refusal(visitor.script("/passkeys/begin", {}, token), people, 403, "not_fresh")
    assert visitor.log_in(step_up=True, to="/passkeys").json == {"next": "/passkeys"}
    assert visitor.get("/passkeys").status_code == 200
    visitor.log_out()
    assert visitor.get("/passkeys").headers["Location"] == "/login?next=%2Fpasskeys"
    refusal(
        visitor.script("/passkeys/begin", {}, visitor.token("/login")), people, 401, "no_session"
    )


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"credential": "x"},
        {"credential": {"id": 1}},
        {"credential": {"id": "!", "rawId": "!", "type": "public-key", "response": {}}},
        {
            "credential": {
                "id": "AA",
                "rawId": "AA",
                "type": "public-key",
                "response": {
                    "clientDataJSON": "AA",
                    "authenticatorData": "AA",
                    "signature": "",
                    "attestationObject": "AA",
                },
            }
        },
    ],
)
def test_malformed_answers_are_refused(people, visitor, body):
    _, path = people.new_operator()
    token = visitor.token(path)
    visitor.options(f"{path}/begin", token)
    visitor.options("/login/passkey/begin", token)
    for where in (f"{path}/finish", "/login/passkey/finish"):
        answer = visitor.script(where, body, token)
        assert answer.status_code in {400, 403}, answer.text
        assert answer.json["error"]
    assert visitor.post("/login/passkey/finish", {"csrf_token": token}).status_code == 403
