"""The pages by which people log in and out."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from flask import Response

from authz_server.admin.console.views import redirection
from authz_server.admin.people import cookies
from authz_server.admin.people.guards import local_path
from authz_server.admin.people.log_ins import decode_token
from authz_server.admin.people.openid import OpenIDProvider, ProviderLogIn
from authz_server.admin.people.parts import PeopleParts, require_same_person, with_cookie
from authz_server.admin.people.refusals import LogInRefusedError
from authz_server.admin.people.rendering import answer_json, page
from authz_server.admin.people.routes import AT_PROVIDER, CALLBACK, PageRoute
from authz_server.admin.people.sessions import Found
from authz_server.admin.people.visits import Visit, object_of, text_of
from authz_server.audit.pending_changes import set_requester_groups
from authz_server.clients.authentication.slots import FairSlots
from authz_server.clients.authentication.throttle import network_of

_FOUND = 302
#: How many codes a process exchanges at once, and how many wait. Together they are fewer than the
#: threads of a worker for such requests, so that the slots choose which one is refused.
_EXCHANGED_CODES, _WAITING_CODES = 4, 4


class LogInPages:
    """Answers requests to log in, to confirm a session, and to log out.

    Args:
        parts: the parts of the pages.
    """

    def __init__(self, parts: PeopleParts) -> None:
        self._parts = parts
        self._answers = FairSlots(_EXCHANGED_CODES, maximum_waiting=_WAITING_CODES)

    @property
    def routes(self) -> tuple[PageRoute, ...]:
        """The routes: method, path and view."""
        return (
            ("GET", "/login", self._show_log_in),
            ("GET", AT_PROVIDER, self._begin_openid),
            ("GET", CALLBACK, self._finish_openid),
            ("POST", "/login/passkey/begin", self._begin_passkey),
            ("POST", "/login/passkey/finish", self._finish_passkey),
            ("POST", "/logout", self._log_out),
        )

    def _show_log_in(self, visit: Visit) -> Response:
        if (elsewhere := self._parts.own_address(visit)) is not None:
            return elsewhere
        step_up = visit.parameter("step_up") == "1"
        found = self._parts.sessions.find(visit.known_id)
        if found is not None and not step_up:
            return redirection(visit.next)
        again = "1" if step_up and found is not None else ""
        by_passkey = found is None or not again or bool(found.session.operator_id)
        by_openid = self._parts.provider is not None and not (again and by_passkey)
        return page(
            "log_in.html",
            visit.texts,
            title=visit.texts("step_up" if again else "log_in"),
            here=f"{visit.link('/login', next=visit.next, step_up=again)}&",
            step_up=bool(again),
            with_passkey=by_passkey,
            openid=visit.link(AT_PROVIDER, next=visit.next, step_up=again) if by_openid else "",
            begin=visit.link("/login/passkey/begin", step_up=again),
            next=visit.next,
            csrf_token=visit.csrf_token,
        )

    def _begin_openid(self, visit: Visit) -> Response:
        provider = self._require_provider()
        at, again = self._parts.services.corrected_clock(), visit.parameter("step_up") == "1"
        content = {"again": again, "at": at.timestamp(), "next": visit.next}
        token = self._parts.log_ins.begin(_openid_digest(visit), content)
        answer = redirection(provider.begin(self._at_provider(token, content)))
        answer.status_code = _FOUND
        return answer

    def _finish_openid(self, visit: Visit) -> Response:
        provider = self._require_provider()
        token = decode_token(visit.parameter("state"))
        content = self._parts.log_ins.read(_openid_digest(visit), token)
        with self._answers.take(network_of(visit.address), cookies.encode(visit.id)):
            # Before the code is sent: each log-in sends the provider one request, even if the
            # browser repeats its own.
            with self._parts.services.database.transaction() as transaction:
                self._parts.log_ins.end(transaction, token)
            person = provider.finish(self._at_provider(token, content))
        # Also of a log-in that is refused: the person may have lost the last role.
        with self._parts.services.database.transaction() as transaction:
            set_requester_groups(transaction, f"operator:{person.key}", person.groups)
        if not self._parts.sessions.roles.grants(person.groups):
            raise LogInRefusedError("no_role", ", ".join(person.groups), person.name)
        require_same_person(self._to_confirm(visit, content), person)
        with self._parts.services.database.transaction() as transaction:
            made = self._parts.sessions.begin(
                transaction, person, before=visit.known_id, facts=visit.facts
            )
        return with_cookie(redirection(local_path(content["next"])), made)

    def _begin_passkey(self, visit: Visit) -> Response:
        self._parts.require_own_script(visit)
        again = visit.parameter("step_up") == "1"
        digest = cookies.digest_of("passkey", visit.id)
        challenge = self._parts.new_challenge(digest, again=again)
        return answer_json(publicKey=self._parts.passkeys.request_options(challenge))

    def _finish_passkey(self, visit: Visit) -> Response:
        self._parts.require_own_script(visit)
        members = visit.members()
        credential = object_of(members, "credential")
        digest = cookies.digest_of("passkey", visit.id)
        challenge, content = self._parts.read_challenge(digest, credential)
        found = self._to_confirm(visit, content)
        with self._parts.services.database.transaction() as transaction:
            operator = self._parts.passkeys.verify(transaction, credential, challenge)
            person = self._parts.passkeys.person(operator)
            require_same_person(found, person)
            self._parts.log_ins.end(transaction, challenge)
            made = self._parts.sessions.begin(
                transaction, person, before=visit.known_id, facts=visit.facts
            )
        return with_cookie(answer_json(next=local_path(text_of(members, "next"))), made)

    def _log_out(self, visit: Visit) -> Response:
        if visit.known_id is None:
            # Nobody is logged in here: there is nothing to end, and nothing to refuse.
            return redirection("/login")
        self._parts.guard.require_own_form(visit.environ, visit.field("csrf_token"))
        self._parts.sessions.end(visit.known_id, visit.facts)
        answer = redirection("/login")
        answer.headers["Set-Cookie"] = cookies.drop_cookie()
        return answer

    def _at_provider(self, token: bytes, content: Mapping[str, Any]) -> ProviderLogIn:
        secret = partial(self._parts.log_ins.secret, token)
        return ProviderLogIn(
            state=cookies.encode(token),
            nonce=secret("nonce"),
            code_verifier=secret("code_verifier"),
            again=content["again"],
            at=content["at"],
        )

    def _require_provider(self) -> OpenIDProvider:
        if self._parts.provider is None:
            raise LogInRefusedError("no_provider")
        return self._parts.provider

    def _to_confirm(self, visit: Visit, content: Mapping[str, Any]) -> Found | None:
        """Return the session that a log-in confirms; None if it is to begin one."""
        return self._parts.sessions.find(visit.known_id) if content["again"] else None


def _openid_digest(visit: Visit) -> bytes:
    return cookies.digest_of("openid", visit.id)
