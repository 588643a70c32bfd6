"""Callers of the admin API: access tokens of this server for it (RFC 6750, RFC 9449, RFC 8705)."""

import hmac
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from authz_server.admin.problems import Problem
from authz_server.admin.route_kinds import Route
from authz_server.assembly.server import ServerServices
from authz_server.clients.cache import ClientEntry
from authz_server.clients.certificates import ClientCertificate
from authz_server.clients.registrations import ADMIN_IDENTIFIER
from authz_server.endpoints.client_address import ClientAddressReader
from authz_server.endpoints.client_certificates import certificate_reader
from authz_server.endpoints.request import Request
from authz_server.errors import OAuthError
from authz_server.operations.permissions import (
    AuthenticationTooOldError,
    Caller,
    Grant,
    LimitedCallerError,
    Limits,
    PermissionMissingError,
    authorise,
    limits_of,
)
from authz_server.settings.profiles import permitted_algorithms
from authz_server.tokens.binding import BEARER, DPOP, JKT, PROOF_HEADER, X5T
from authz_server.tokens.target_uris import normalise_target
from authz_server.waiting import run

REALM = "authz-server admin"
_BINDINGS = frozenset({JKT, X5T})
#: With the limits and the name of one party alone, it would do what the other one may not.
_OF_TWO_PARTIES = (
    "The token has an actor, or its subject is not its client. Use one that the client obtained for"
    " itself."
)


class Callers:
    """Authenticates the callers of the admin API.

    Args:
        services: the parts of the server.
    """

    def __init__(self, services: ServerServices) -> None:
        settings = services.settings
        self._services = services
        self._url = settings.admin.url
        self._addresses = ClientAddressReader(
            settings.server.trusted_proxies, settings.server.forwarded_header
        )
        self._certificates = certificate_reader(
            settings.client_certificates, settings.server.trusted_proxies
        )
        self._algorithms = " ".join(
            permitted_algorithms(settings.profiles, settings.dpop.algorithms)
        )

    def address_of(self, request: Request) -> str:
        """Return the IP address of the caller.

        Raises:
            OAuthError: ``forwarded_address_malformed``.
        """
        return self._addresses.read(request)

    def authenticate(self, request: Request, address: str) -> Caller:
        """Return the caller.

        Args:
            request: the request.
            address: the IP address of the caller.

        Raises:
            Problem: ``invalid-token``, ``invalid-dpop-proof`` or ``invalid-request``.
            OAuthError: the caches are too old and the database does not answer, or the header of
                a proxy is malformed.
        """
        scheme, token = self._presented(request)
        self._services.feed.require_fresh()
        server = self._services.directory.find_resource_server(ADMIN_IDENTIFIER)
        if server is None or not server.enabled:
            raise self._invalid(scheme)
        found = run(self._services.introspection.find_active(server, token))
        if found is None or ADMIN_IDENTIFIER not in _listed(found["aud"]):
            raise self._invalid(scheme)
        self._require_binding(request, scheme, token, found.get("cnf"))
        client = self._services.directory.find(found.get("client_id", ""))
        if client is None:
            raise self._invalid(scheme)
        self._require_address(client, address, scheme)
        self._require_one_party(request, client, found, scheme)
        permissions = self._permissions(server, found["scope"])
        grant = Grant(permissions=permissions, limits=limits_of(client.properties))
        return Caller(name=client.id, kind="client", way="api", grants=(grant,), scheme=scheme)

    def _presented(self, request: Request) -> tuple[str, str]:
        header = request.headers.get("authorization", "")
        if not header:
            # RFC 6750, 3.1: no error code without a token.
            challenges = [f'{BEARER} realm="{REALM}"']
            if self._services.dpop_proofs is not None:
                challenges.append(f'{DPOP} realm="{REALM}", algs="{self._algorithms}"')
            raise Problem("invalid-token", headers={"WWW-Authenticate": ", ".join(challenges)})
        name, _, token = header.partition(" ")
        schemes = {BEARER.lower(): BEARER}
        if self._services.dpop_proofs is not None:
            schemes[DPOP.lower()] = DPOP
        scheme = schemes.get(name.lower(), "")
        token = token.strip(" ")
        if not scheme or not token or not token.isascii() or set(token) & set(" ,"):
            raise self._invalid(scheme or BEARER)
        return scheme, token

    def _require_binding(
        self, request: Request, scheme: str, token: str, confirmation: Mapping[str, Any] | None
    ) -> None:
        """Require proof of every key that the token is bound to."""
        bound = confirmation or {}
        # RFC 9449, 7.2: a token that is bound by DPoP is no bearer token.
        if not _BINDINGS.issuperset(bound) or (JKT in bound) != (scheme == DPOP):
            raise self._invalid(scheme)
        if X5T in bound:
            certificate = self._certificate(request)
            shown = "" if certificate is None else certificate.thumbprint
            if not hmac.compare_digest(shown.encode(), str(bound[X5T]).encode()):
                raise self._invalid(scheme)
        if JKT in bound:
            self._require_proof(request, token, str(bound[JKT]))

    def _certificate(self, request: Request) -> ClientCertificate | None:
        return None if self._certificates is None else self._certificates.read(request)

    def _require_proof(self, request: Request, token: str, thumbprint: str) -> None:
        proofs = self._services.dpop_proofs
        text = request.headers.get(PROOF_HEADER)
        if proofs is None or text is None:
            raise self._unproven("invalid_dpop_proof", "The DPoP header is missing.")
        target = normalise_target(f"{self._url}{request.path}")
        try:
            proof = proofs.read(text, (target,), method=request.method, access_token=token)
            if not hmac.compare_digest(proof.jkt.encode(), thumbprint.encode()):
                raise self._unproven("invalid_dpop_proof", "The proof is by another key.")
            run(proofs.use(proof, ""))
        except OAuthError as refusal:
            if not refusal.reason.startswith("dpop_"):
                raise
            raise self._unproven(refusal.error, refusal.description) from None

    def _require_address(self, client: ClientEntry, address: str, scheme: str) -> None:
        limits = client.restrictions
        if limits is not None and not limits.admits(address):
            raise self._invalid(scheme)

    def _require_one_party(
        self, request: Request, client: ClientEntry, found: Mapping[str, Any], scheme: str
    ) -> None:
        """Refuse a token that a client has on behalf of another party (RFC 8693, RFC 7523)."""
        if "act" in found or found.get("sub") != client.id:
            request.client_id = client.id
            headers = self._challenge(scheme, "invalid_token")
            raise Problem("invalid-token", _OF_TWO_PARTIES, headers=headers)

    def _permissions(self, server: ClientEntry, scope: str) -> frozenset[str]:
        """Return the canonical names of the scopes that the admin API owns."""
        found = (self._services.catalogue.find(spelling) for spelling in scope.split(" "))
        return frozenset(
            entry.name
            for entry in found
            if entry is not None and entry.resource_server_id == server.id
        )

    def _invalid(self, scheme: str) -> Problem:
        """Return the one refusal of every token that does not count."""
        return Problem("invalid-token", headers=self._challenge(scheme, "invalid_token"))

    def _unproven(self, error: str, detail: str) -> Problem:
        headers = self._challenge(DPOP, error)
        proofs = self._services.dpop_proofs
        nonce = "" if proofs is None else proofs.make_nonce()
        if nonce:
            headers["DPoP-Nonce"] = nonce
        return Problem("invalid-dpop-proof", detail, headers=headers)

    def _challenge(self, scheme: str, error: str) -> dict[str, str]:
        algorithms = f', algs="{self._algorithms}"' if scheme == DPOP else ""
        value = f'{scheme} realm="{REALM}", error="{error}"{algorithms}'
        return {"WWW-Authenticate": value}


def require_permission(
    caller: Caller,
    permission: str,
    *,
    now: datetime,
    whole_server: bool,
    instead: Iterable[str] = (),
) -> Limits:
    """Return the limits within which a caller may do something.

    Args:
        caller: the caller.
        permission: the permission that the act needs; empty: every caller has it.
        now: the present time.
        whole_server: whether the act concerns the whole server.
        instead: the permissions each of which is enough as well.

    Raises:
        Problem: ``insufficient-scope``, ``insufficient-user-authentication`` or ``refused``.
    """
    try:
        return authorise(caller, permission, now=now, whole_server=whole_server, instead=instead)
    except PermissionMissingError as missing:
        detail, name, headers = str(missing), "insufficient-scope", {}
        if caller.scheme:
            detail = f"The scope {permission} is required."
            challenge = f'{caller.scheme} realm="{REALM}", error="insufficient_scope"'
            headers = {"WWW-Authenticate": f'{challenge}, scope="{permission}"'}
        raise Problem(name, detail, headers=headers, members={"scope": permission}) from None
    except AuthenticationTooOldError as old:
        raise Problem("insufficient-user-authentication", str(old)) from None
    except LimitedCallerError as limited:
        raise Problem("refused", str(limited)) from None


def authorise_route(caller: Caller, route: Route, *, now: datetime) -> Limits:
    """Return the limits within which a caller uses a route.

    Args:
        caller: the caller.
        route: the route.
        now: the present time.

    Raises:
        Problem: as :func:`require_permission`.
    """
    require = partial(
        require_permission,
        caller,
        now=now,
        whole_server=route.limited not in {"open", "part", "items"},
    )
    for permission in route.further:
        require(permission)
    held = (each for each in route.one_of if each in caller.permissions)
    return require(next(held, route.permission), instead=route.instead)


def _listed(audience: str | tuple[str, ...]) -> tuple[str, ...]:
    return (audience,) if isinstance(audience, str) else tuple(audience)
