"""The parts that the pages of people share."""

from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from flask import Response

from authz_server.admin.console.views import redirection
from authz_server.admin.people import cookies
from authz_server.admin.people.guards import SiteGuard
from authz_server.admin.people.openid import OpenIDProvider
from authz_server.admin.people.passkeys import Passkeys
from authz_server.admin.people.refusals import LogInRefusedError
from authz_server.admin.people.sessions import Found, LogIns, Person, Sessions, is_of
from authz_server.admin.people.visits import Visit
from authz_server.admin.rates import CallerRates
from authz_server.assembly.server import ServerServices
from authz_server.clients.authentication.throttle import network_of

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
        log_ins: keeps log-ins that have begun.
        passkeys: registers and verifies passkeys.
        provider: the OpenID Connect provider; None: there is none.
        rates: counts the log-ins of each network.
    """

    services: ServerServices
    url: str
    guard: SiteGuard
    sessions: Sessions
    log_ins: LogIns
    passkeys: Passkeys
    provider: OpenIDProvider | None
    rates: CallerRates

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

    def count(self, visit: Visit) -> None:
        """Count a log-in that begins; Problem ``too-many-requests``."""
        self.rates.count(network_of(visit.address))

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

    def keep_challenge(self, digest: bytes, challenge: bytes, *, again: bool = False) -> None:
        """Store the challenge of a passkey."""
        content = {"challenge": b64encode(challenge).decode(), "again": again}
        self.log_ins.begin(digest, content)

    def take_challenge(self, digest: bytes) -> tuple[bytes, dict[str, Any]]:
        """Return a challenge, once, with what it was stored with.

        Raises:
            LogInRefusedError: ``log_in_over``.
        """
        content = self.log_ins.take(digest)
        if content is None:
            raise LogInRefusedError("log_in_over", "challenge")
        return b64decode(content["challenge"]), content


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
