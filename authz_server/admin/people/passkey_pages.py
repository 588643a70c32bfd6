"""The pages by which local operators enrol and keep passkeys."""

from contextlib import suppress
from operator import attrgetter
from typing import Any

from flask import Response
from sqlalchemy.orm import Session

from authz_server.admin.console.views import redirection
from authz_server.admin.people import cookies
from authz_server.admin.people.parts import PeopleParts, with_cookie
from authz_server.admin.people.passkeys import passkeys_of
from authz_server.admin.people.refusals import LogInRefusedError
from authz_server.admin.people.rendering import answer_json, page
from authz_server.admin.people.routes import ENROL, PageRoute
from authz_server.admin.people.visits import Visit, object_of, text_of
from authz_server.audit.records import record_difference, store_audit_record
from authz_server.database.operator_sessions import OperatorPasskey
from authz_server.database.operators import Operator
from authz_server.errors import ConflictError, NotFoundError
from authz_server.operations.enrolment import find_enrolment, use_enrolment
from authz_server.operations.passkeys import describe_passkey, list_passkeys, remove_passkey


class PasskeyPages:
    """Answers requests to enrol by a link, and to add and remove further passkeys.

    Args:
        parts: the parts of the pages.
    """

    def __init__(self, parts: PeopleParts) -> None:
        self._parts = parts

    @property
    def routes(self) -> tuple[PageRoute, ...]:
        """The routes: method, path and view."""
        return (
            ("GET", f"{ENROL}<token>", self._show_enrolment),
            ("POST", f"{ENROL}<token>/begin", self._begin_enrolment),
            ("POST", f"{ENROL}<token>/finish", self._finish_enrolment),
            ("GET", "/passkeys", self._show_passkeys),
            ("POST", "/passkeys/begin", self._begin_further),
            ("POST", "/passkeys/finish", self._finish_further),
            ("POST", "/passkeys/remove", self._remove_passkey),
        )

    def _show_enrolment(self, visit: Visit, token: str) -> Response:
        if (elsewhere := self._parts.own_address(visit)) is not None:
            return elsewhere
        with self._parts.services.database.reading() as session:
            operator = find_enrolment(session, token, self._parts.services.corrected_clock())
            name = operator.name
        return page(
            "enrol.html",
            visit.texts,
            title=visit.texts("enrol"),
            here=f"{ENROL}{token}?",
            path=f"{ENROL}{token}",
            name=name,
            csrf_token=visit.csrf_token,
        )

    def _begin_enrolment(self, visit: Visit, token: str) -> Response:
        self._parts.require_own_script(visit)
        with self._parts.services.database.reading() as session:
            operator = find_enrolment(session, token, self._parts.services.corrected_clock())
            return self._creation(visit, session, operator, "enrol", token.encode())

    def _finish_enrolment(self, visit: Visit, token: str) -> Response:
        self._parts.require_own_script(visit)
        members = visit.members()
        digest = cookies.digest_of("enrol", visit.id, token.encode())
        with self._parts.services.transaction() as transaction:
            operator = use_enrolment(transaction, token, self._parts.services.corrected_clock())
            self._register(transaction, operator, members, digest, "operator.passkey_enrolled")
            made = self._parts.sessions.begin(
                transaction,
                self._parts.passkeys.person(operator),
                before=visit.known_id,
                facts=visit.facts,
            )
        return with_cookie(answer_json(next="/"), made)

    def _show_passkeys(self, visit: Visit) -> Response:
        found = self._parts.sessions.find(visit.known_id)
        if found is None:
            return redirection(visit.link("/login", next="/passkeys"))
        if not found.session.operator_id:
            # A person of the provider has no passkeys here.
            return redirection("/")
        if found.caller.authenticated_at is None:
            return redirection(visit.link("/login", step_up="1", next="/passkeys"))
        return page(
            "passkeys.html",
            visit.texts,
            title=visit.texts("passkeys"),
            here="/passkeys?",
            passkeys=sorted(
                list_passkeys(self._parts.services, found.session.operator_id),
                key=attrgetter("created_at"),
            ),
            csrf_token=visit.csrf_token,
        )

    def _begin_further(self, visit: Visit) -> Response:
        self._parts.require_own_script(visit)
        operator_id = self._parts.require_fresh(visit).session.operator_id
        with self._parts.services.database.reading() as session:
            operator = session.get_one(Operator, operator_id)
            return self._creation(visit, session, operator, "further", operator_id.encode())

    def _finish_further(self, visit: Visit) -> Response:
        self._parts.require_own_script(visit)
        members = visit.members()
        operator_id = self._parts.require_fresh(visit).session.operator_id
        digest = cookies.digest_of("further", visit.id, operator_id.encode())
        with self._parts.services.transaction() as transaction:
            operator = transaction.get_one(Operator, operator_id)
            self._register(transaction, operator, members, digest, "operator.passkey_added")
        return answer_json(next="/passkeys")

    def _remove_passkey(self, visit: Visit) -> Response:
        self._parts.guard.require_own_form(visit.environ, visit.field("csrf_token"))
        found = self._parts.require_fresh(visit)
        try:
            # A session that began with a lost device ends.
            with suppress(NotFoundError):  # it has been removed
                remove_passkey(
                    self._parts.services,
                    found.session.operator_id,
                    visit.field("passkey"),
                    actor=found.caller.actor,
                    acting_operator=found.session.operator_id,
                    own_session=found.session.digest,
                )
        except ConflictError:
            raise LogInRefusedError("last_passkey", who=found.session.name) from None
        return redirection("/passkeys")

    def _creation(
        self,
        visit: Visit,
        session: Session,
        operator: Operator,
        purpose: str,
        part: bytes,
    ) -> Response:
        challenge = self._parts.new_challenge(cookies.digest_of(purpose, visit.id, part))
        known = passkeys_of(session, operator.id)
        options = self._parts.passkeys.creation_options(operator, known, challenge)
        return answer_json(publicKey=options)

    def _register(
        self,
        transaction: Session,
        operator: Operator,
        members: dict[str, Any],
        digest: bytes,
        action: str,
    ) -> None:
        credential, name = object_of(members, "credential"), text_of(members, "name")
        challenge, _ = self._parts.read_challenge(digest, credential)
        passkey = self._parts.passkeys.register(transaction, operator, credential, challenge, name)
        self._parts.log_ins.end(transaction, challenge)
        self._record(transaction, operator, passkey, action)

    def _record(
        self,
        transaction: Session,
        operator: Operator,
        passkey: OperatorPasskey,
        action: str,
    ) -> None:
        store_audit_record(
            transaction,
            at=self._parts.services.corrected_clock(),
            actor=f"operator:{operator.name} via console",
            action=action,
            subject=operator.name,
            operator_id=operator.id,
            passkey=passkey.name,
        )
        record_difference(transaction, None, describe_passkey(passkey))
