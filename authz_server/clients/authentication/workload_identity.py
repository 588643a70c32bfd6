"""``workload_identity``: the token of a platform as client assertion (RFC 7523, 2.2).

The issuer is a registered one, not the client. A platform hands one token to a workload for
minutes or hours, so that it may be used again until it expires; ``docs/workload-identity.md``
states the rules.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from authz_server.clients.authentication.assertions import (
    JWT_BEARER,
    Assertion,
    parse_assertion,
)
from authz_server.clients.authentication.method import (
    AuthenticationRequest,
    ClientAuthenticationMethod,
    Credentials,
    Reading,
    Verdict,
)
from authz_server.clients.cache import ClientCache, ClientEntry
from authz_server.clients.issuers import Issuer, RegisteredIssuers, trust_domain
from authz_server.errors import OAuthError
from keys.errors import TokenRefusedError

#: draft-ietf-oauth-spiffe-client-auth.
JWT_SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
#: Draft rfc7523bis.
ASSERTION_TYPE = "client-authentication+jwt"
WORKLOAD_IDENTITY = "workload_identity"
SPIFFE_JWT = "spiffe_jwt"


class WorkloadIdentityMethod(ClientAuthenticationMethod):
    """Verifies tokens of registered issuers, and finds the client of the workload.

    The signature is verified whether or not the client is known or has the identity, so that a
    refusal does not reveal which.

    Args:
        directory: the clients in memory.
        issuers: the registered issuers.
    """

    IS_KEYED: ClassVar[bool] = True
    NAMES: ClassVar[tuple[str, ...]] = (WORKLOAD_IDENTITY, SPIFFE_JWT)
    REGISTRATIONS: ClassVar[Mapping[str, Sequence[str]]] = {
        WORKLOAD_IDENTITY: NAMES,
        SPIFFE_JWT: (SPIFFE_JWT,),
    }

    def __init__(self, directory: ClientCache, issuers: RegisteredIssuers) -> None:
        self._directory = directory
        self._issuers = issuers

    def recognise(self, request: AuthenticationRequest) -> Credentials | None:
        """Return the token of a registered issuer in the form.

        Raises:
            OAuthError: ``client_authentication_failed``; it is a JWT-SVID by its type, but not
                one of a registered trust domain.
        """
        form = request.form
        kind, token = form.get("client_assertion_type"), form.get("client_assertion")
        if token is None or kind not in (JWT_BEARER, JWT_SPIFFE):
            return None
        try:
            assertion = parse_assertion(token)
        except TokenRefusedError as refusal:
            if kind == JWT_BEARER:
                return None  # refused by the methods of that type
            raise _refusal("assertion_malformed", form, refusal.reason) from None
        issuer = self._find_issuer(assertion.claims, kind)
        if issuer is None:
            if kind == JWT_BEARER:
                return None
            raise _refusal("assertion_issuer", form)
        client_id = form.get("client_id") or self._find_client(issuer, assertion.claims)
        name = SPIFFE_JWT if kind == JWT_SPIFFE else WORKLOAD_IDENTITY
        return Credentials(name, (Reading(client_id, f"{kind} {token}".encode()),))

    def verify(self, reading: Reading, client: ClientEntry, address: str, now: float) -> Verdict:
        """Check the claims; the signature takes a further check, which may fetch keys."""
        del address
        kind, _, token = reading.proof.decode().partition(" ")
        assertion = parse_assertion(token)
        claims = assertion.claims
        issuer = self._find_issuer(claims, kind)
        if issuer is None:
            return Verdict(cause="assertion_issuer")
        if "cnf" in claims:
            # RFC 7800, 3: its presenter has to prove a key, and client authentication checks no
            # proof.
            return Verdict(cause="assertion_confirmation")
        try:
            issuer.check(assertion.token, claims, now, typ=ASSERTION_TYPE)
        except TokenRefusedError as refusal:
            return Verdict(cause=refusal.reason)
        further = partial(self._verify, issuer, assertion, client)
        return Verdict(cause="assertion_signature", further=further)

    async def _verify(self, issuer: Issuer, assertion: Assertion, client: ClientEntry) -> Verdict:
        try:
            await issuer.verify(assertion.token)
        except TokenRefusedError as refusal:
            return Verdict(cause=refusal.reason)
        for identity in client.properties.workload_identities:
            if identity.issuer in issuer.names and identity.fits(assertion.claims, issuer.audience):
                return Verdict(f"issuer:{issuer.name}")
        return Verdict(cause="assertion_subject")

    def _find_issuer(self, claims: Mapping[str, Any], kind: str) -> Issuer | None:
        if kind == JWT_SPIFFE:
            return self._issuers.find(trust_domain(claims.get("sub")))
        if claims.get("iss") == claims.get("sub"):
            return None  # a client's own assertion
        return self._issuers.find(claims.get("iss"))

    def _find_client(self, issuer: Issuer, claims: Mapping[str, Any]) -> str:
        """Return the only client that the claims fit; empty if there is none or several."""
        if not isinstance(claims.get("sub"), str):
            return ""
        found = self._directory.workloads.find(issuer.names, claims, issuer.audience)
        return found[0] if len(found) == 1 else ""


def _refusal(cause: str, form: Mapping[str, str], detail: str = "") -> OAuthError:
    return OAuthError(
        "client_authentication_failed", detail, cause=cause, client_id=form.get("client_id", "")
    )
