"""The parts that the pages of people share."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from flask import Response

from authz_server.admin.console.views import redirection
from authz_server.admin.people import cookies
from authz_server.admin.people.guards import SiteGuard
from authz_server.admin.people.log_ins import LogIns
from authz_server.admin.people.openid import OpenIDProvider
from authz_server.admin.people.passkeys import Passkeys, read_challenge
from authz_server.admin.people.refusals import LogInRefusedError
from authz_server.admin.people.sessions import Found, Person, Sessions, is_of
from authz_server.admin.people.visits import Visit
from authz_server.assembly.server import ServerServices

_CSRF_HEADER = "x-csrf-token"
_LOOPBACK_ADDRESSES = frozenset({"127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PeopleParts:
    """The parts that the pages use.

    Attributes:
        services: the parts of the server.
        url: the URL of the console.
        guard: refuses requests that another site makes a browser send.
        sessions: begins, finds and ends sessions.
        log_ins: begins and ends log-ins.
        passkeys: registers and verifies passkeys.
        provider: the OpenID Connect provider; None: there is none.
    """

    services: ServerServices
    url: str
    guard: SiteGuard
    sessions: Sessions
    log_ins: LogIns
    passkeys: Passkeys
    provider: OpenIDProvider | None

    def own_address(self, visit: Visit) -> Response | None:
        """Return a redirection from a loopback address: a passkey needs the name of the host."""
        host = visit.environ.get("HTTP_HOST", "")
        is_address = host.rpartition(":")[0] in _LOOPBACK_ADDRESSES
        if not is_address or urlsplit(self.url).hostname != "localhost":
            return None
        query = f"?{visit.request.query}" if visit.request.query else ""
        return redirection(f"{self.url}{visit.request.path}{query}")

    def require_own_script(self, visit: Visit) -> None:
        """Require that our script has sent a request; LogInRefusedError ``cross_site``."""
        token = visit.request.headers.get(_CSRF_HEADER, "")
        self.guard.require_own_form(visit.environ, token)

    def require_fresh(self, visit: Visit) -> Found:
        """Return the session of a local operator who has just logged in.

        Raises:
            LogInRefusedError: ``no_session`` or ``not_fresh``.
        """
        found = self.sessions.find(visit.known_id)
        if found is None or not found.session.operator_id:
            raise LogInRefusedError("no_session")
        if found.caller.authenticated_at is None:
            raise LogInRefusedError("not_fresh", who=found.session.name)
        return found

    def new_challenge(self, digest: bytes, *, again: bool = False) -> bytes:
        """Return a challenge for a passkey.

        Args:
            digest: of the id in the browser's cookie and of the purpose.
            again: whether the log-in confirms a session.
        """
        return self.log_ins.begin(digest, {"again": again})

    def read_challenge(
        self, digest: bytes, credential: dict[str, Any]
    ) -> tuple[bytes, dict[str, Any]]:
        """Return the challenge that a credential answers, and what it was made with.

        Raises:
            LogInRefusedError: ``log_in_over`` or ``passkey_refused``.
        """
        challenge = read_challenge(credential)
        return challenge, self.log_ins.read(digest, challenge)


def require_same_person(found: Found | None, person: Person) -> None:
    """Refuse to confirm the session of another person.

    Args:
        found: the session to confirm; None: there is none.
        person: who has logged in.

    Raises:
        LogInRefusedError: ``other_person``.
    """
    if found is not None and not is_of(found.session, person):
        raise LogInRefusedError("other_person", found.session.name, person.name)


def with_cookie(answer: Response, id_: bytes) -> Response:
    """Return a response that sets the cookie."""
    answer.headers["Set-Cookie"] = cookies.make_cookie(id_)
    return answer
