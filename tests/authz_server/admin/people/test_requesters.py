"""The right of a person of the provider whose change waits: what the latest log-in says."""

from collections.abc import Callable
from datetime import timedelta
from itertools import count
from urllib.parse import quote, urlencode

import pytest
from sqlalchemy import delete, update

from authz_server.app import EXTENSION
from authz_server.audit.models import AuditRecord
from authz_server.audit.pending_changes import PendingChange
from authz_server.database.operator_sessions import OperatorSession
from authz_server.operations.clients import create_client
from authz_server.operations.operators import create_operator
from support.lying_provider import CLIENT_ID, CLIENT_SECRET, LyingProvider
from support.parties import ACTOR
from support.people_site import PeopleSite, Visitor, running_people_site

LOGGED_OUT = "An operator has ended the sessions of the requester"
_numbers = count()


@pytest.fixture(scope="module")
def provider():
    """The provider of the file."""
    with LyingProvider() as made:
        yield made


@pytest.fixture(scope="module")
def people(module_database_url: str, tmp_path_factory, provider):
    """The pages of people with a provider, where further secrets wait for an approval."""
    directory = tmp_path_factory.mktemp("requesters")
    (directory / "client-secret").write_text(CLIENT_SECRET)
    openid = {
        "issuer": provider.issuer,
        "client_id": CLIENT_ID,
        "client_secret": {"file": "client-secret"},
        "roles": {"desk": ["client-manager"], "guests": ["auditor"]},
    }
    tables = {
        "admin": {"openid": openid},
        "approvals": {"acts": ["client.add_credential"]},
        "outbound": {"plain_http": True},
    }
    with running_people_site(directory, module_database_url, tables) as site:
        yield site


@pytest.fixture(scope="module")
def officer(people) -> Visitor:
    """The browser of the second person, whose passkey is older than every change."""
    enrolled = people.enrolled()
    people.clock.advance(1)
    return enrolled


class _Person:
    """A person of the provider, with a change that waits.

    Args:
        people: the site.
        provider: the provider.
        officer: the browser of the second person.
        shown: what people call the person; empty: the records have the ``sub`` alone.
    """

    def __init__(
        self, people: PeopleSite, provider: LyingProvider, officer: Visitor, shown: str = "Ada"
    ) -> None:
        self.services = people.apps[0].extensions[EXTENSION]
        self.subject = f"person-{next(_numbers)}"
        self.name = f"{shown} ({self.subject})" if shown else self.subject
        self._people, self._provider, self._officer, self._shown = people, provider, officer, shown
        people.clock.keep_ahead(1)
        officer.log_in()
        self.browser = Visitor(people)
        self.log_in("desk")
        self._client = self._make_client()
        filed = self._perform("POST", f"/clients/{self._client}/secrets", self.browser)
        assert filed.status == 202, filed.body
        self.change = filed.body["id"]

    def log_in(self, *groups: str, browser: Visitor | None = None) -> int:
        """Log in at the provider, which names these groups; return the status."""
        browser = browser or self.browser
        self._provider.reset()
        shown = self._shown or None
        claims = {"sub": self.subject, "preferred_username": shown, "groups": list(groups)}
        self._provider.claims = claims
        back = self._provider.authorise(browser.get("/login/openid").headers["Location"])
        return browser.get(f"/login/openid/callback?{urlencode(back)}").status_code

    def idle(self) -> None:
        """Send nothing until the session is over."""
        earlier = self._people.clock() - timedelta(hours=1)
        own = OperatorSession.subject == self.subject
        with self.services.database.transaction() as session:
            session.execute(update(OperatorSession).where(own).values(seen_at=earlier))
        assert self.browser.caller() is None

    def log_out_of(self, name: str) -> tuple[int, dict]:
        """Have an operator end the sessions of a name; return the status and the answer."""
        done = self._perform("POST", f"/operators/{quote(name)}/log-out")
        return done.status, done.body

    def be_logged_out(self, name: str = "", *, sessions: int) -> None:
        """Have an operator end the sessions, of which there are so many."""
        status, done = self.log_out_of(name or f"openid:{self.subject}")
        assert (status, done["operator"], done["sessions"]) == (200, self.name, sessions)

    def decide(self) -> tuple[int, dict]:
        """Have the change approved; return the status and the answer."""
        done = self._perform("POST", f"/changes/{self.change}/approve", if_match="*")
        return done.status, done.body

    def require_approved(self, because: str = "") -> None:
        """Require that the change is approved, or is refused for good with this cause."""
        before = self._count_secrets()
        status, answer = self.decide()
        shown = self._perform("GET", f"/changes/{self.change}").body
        if because:
            assert (status, self._count_secrets()) == (409, before), answer
            assert because in answer["detail"]
            assert (shown["state"], because in shown["problem"]) == ("failed", True)
        else:
            assert (status, self._count_secrets()) == (200, before + 1), answer

    def _make_client(self) -> str:
        made = create_client(
            self.services,
            actor=ACTOR,
            name=self.subject,
            allowed_scopes=[],
            authentication_method="client_secret_post",
        )
        return made.client.id

    def _count_secrets(self) -> int:
        return len(self._perform("GET", f"/clients/{self._client}/secrets").body["items"])

    def _perform(self, method: str, path: str, by: Visitor | None = None, **options):
        body = None if method == "GET" else {}
        caller = (by or self._officer).caller()
        return self._people.apps[1].api.perform(caller, method, path, body=body, **options)


@pytest.fixture
def person(people, provider, officer) -> _Person:
    """A new person of the desk, with a change that waits."""
    return _Person(people, provider, officer)


def _stay(_: _Person) -> None:
    pass


def _leave(person: _Person) -> None:
    # The log-in page has no form for a person of the provider.
    token = person.browser.token("/clients")
    assert person.browser.post("/logout", {"csrf_token": token}).status_code == 303
    assert person.browser.caller() is None


_ENDS = pytest.mark.parametrize("end", [_stay, _leave, _Person.idle])
_End = Callable[[_Person], None]


@_ENDS
@pytest.mark.parametrize(
    ("group", "because"), [("desk", ""), ("guests", "The permission secrets:write is required")]
)
def test_the_groups_of_the_latest_log_in_count_after_its_session_too(
    person, end: _End, group: str, because: str
):
    """Otherwise a person who lost a group has it again by logging out, or by 15 idle minutes."""
    assert person.log_in(group) == 303
    end(person)
    person.require_approved(because)


@pytest.mark.parametrize("groups", [[], ["unknown"]])
def test_the_groups_of_a_refused_log_in_count(person, people, groups: list[str]):
    """The provider has said that the person has no role any more."""
    assert person.log_in(*groups, browser=Visitor(people)) == 403
    person.require_approved("has no role")


@_ENDS
def test_a_person_who_was_logged_out_has_nothing_approved(person, end: _End):
    """An operator does so when the account is closed: also if the session was over already."""
    end(person)
    person.be_logged_out(sessions=int(end is _stay))
    person.require_approved(LOGGED_OUT)


@_ENDS
def test_a_log_in_after_a_log_out_gives_the_right_again(person, end: _End):
    """Also after that session: the provider has let the person in since."""
    person.be_logged_out(sessions=1)
    assert person.log_in("desk") == 303
    end(person)
    person.require_approved()


def test_a_log_out_holds_longer_than_its_audit_record(person):
    """Records may be kept for a day, and changes may wait for a month."""
    person.be_logged_out(sessions=1)
    ended = AuditRecord.action == "operator.sessions_ended"
    with person.services.database.transaction() as session:
        session.execute(delete(AuditRecord).where(ended))
    person.require_approved(LOGGED_OUT)


@_ENDS
def test_a_person_whose_change_waits_is_found_without_a_session(person, end: _End):
    """By the name in records and the ``sub``, too; who has neither is not found."""
    end(person)
    person.be_logged_out(person.name, sessions=int(end is _stay))
    person.be_logged_out(person.subject, sessions=0)
    person.require_approved(LOGGED_OUT)
    for name in (person.name, person.subject, f"openid:{person.subject}"):
        status, problem = person.log_out_of(name)
        assert (status, repr(name) in problem["detail"]) == (404, True)


@_ENDS
def test_a_name_of_two_people_is_refused_without_a_session_too(
    people, provider, officer, end: _End
):
    """The wrong one would keep the right."""
    person = _Person(people, provider, officer, shown="")
    end(person)
    create_operator(person.services, actor=ACTOR, name=person.subject)
    status, problem = person.log_out_of(person.subject)
    assert (status, f"openid:{person.subject}" in problem["detail"]) == (409, True)
    person.be_logged_out(sessions=int(end is _stay))
    person.require_approved(LOGGED_OUT)


def test_a_change_whose_groups_are_unknown_waits_for_a_log_in(person):
    """As one that a node of the release before files: it says so, and does not fail for good."""
    own = PendingChange.id == person.change
    with person.services.database.transaction() as session:
        session.execute(update(PendingChange).where(own).values(requester_groups=None))
    status, problem = person.decide()
    assert (status, problem["detail"]) == (
        409,
        "The groups of the requester are not known: the requester logs in, or requests it again.",
    )
    assert person.log_in("desk") == 303
    person.require_approved()
