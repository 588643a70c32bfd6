"""``tls_client_auth``: a certificate of a public key infrastructure (RFC 8705, 2.1)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from authz_server.clients.authentication.method import (
    AuthenticationRequest,
    ClientAuthenticationMethod,
    Credentials,
    Reading,
    Verdict,
)
from authz_server.clients.cache import ClientCache, ClientEntry
from authz_server.clients.certificate_names import (
    SELF_SIGNED_TLS_CLIENT_AUTH,
    TLS_CLIENT_AUTH,
    is_named,
)
from authz_server.clients.certificate_parser import parse_certificate
from authz_server.clients.certificates import ClientCertificate

#: The credential of an accepted certificate; certificates have no rows of their own.
_CREDENTIAL = "certificate"
#: In the place of a certificate whose chain leads to no known authority.
_NOT_VERIFIED = b""


class Chains(Protocol):
    """Verifies chains of certificates."""

    def is_valid(self, certificate: ClientCertificate) -> bool:
        """Return whether the certificate leads to a known authority."""


class TlsClientAuth(ClientAuthenticationMethod):
    """Compares the certificate with the one name that the client is registered for.

    The TLS front, or the server's own listener, has verified the chain of the certificate.

    Args:
        directory: the clients in memory.
        chains: verifies each chain once more; None: it is not verified again.
        clock_skew_seconds: how far ahead the validity of a certificate may begin.
    """

    IS_KEYED: ClassVar[bool] = True
    NAMES: ClassVar[tuple[str, ...]] = (TLS_CLIENT_AUTH,)
    REGISTRATIONS: ClassVar[Mapping[str, Sequence[str]]] = {TLS_CLIENT_AUTH: NAMES}

    def __init__(
        self, directory: ClientCache, chains: Chains | None, clock_skew_seconds: int
    ) -> None:
        self._directory = directory
        self._chains = chains
        self._clock_skew_seconds = clock_skew_seconds

    def recognise(self, request: AuthenticationRequest) -> Credentials | None:
        """Return the certificate of a client of this method, or of an unknown client."""
        certificate, client_id = request.certificate, claimed_by_certificate(request)
        if certificate is None or client_id is None:
            return None
        client = self._directory.find(client_id)
        method = TLS_CLIENT_AUTH if client is None else client.authentication_method
        if method == SELF_SIGNED_TLS_CLIENT_AUTH:
            return None
        # Also for clients of other methods, whose refusal must not take less time.
        is_verified = certificate.is_verified and self._leads_to_authority(certificate)
        if method != TLS_CLIENT_AUTH:
            return None
        proof = certificate.der if is_verified else _NOT_VERIFIED
        return Credentials(TLS_CLIENT_AUTH, (Reading(client_id, proof),))

    def verify(self, reading: Reading, client: ClientEntry, address: str, now: float) -> Verdict:
        """Compare the name, then the time of the certificate."""
        del address
        if reading.proof == _NOT_VERIFIED:
            return Verdict("", "certificate_not_verified")
        certificate = parse_certificate(reading.proof)
        if not is_named(certificate, client.properties):
            return Verdict("", "certificate_wrong")
        return verdict_in_force(certificate, now, self._clock_skew_seconds)

    def _leads_to_authority(self, certificate: ClientCertificate) -> bool:
        return self._chains is None or self._chains.is_valid(certificate)


def claimed_by_certificate(request: AuthenticationRequest) -> str | None:
    """Return the client id of a request whose only credentials can be a certificate.

    A certificate beside other credentials authenticates nothing; tokens may be bound to it.
    """
    form = request.form
    if request.authorization or "client_secret" in form or "client_assertion" in form:
        return None
    return form.get("client_id")


def verdict_in_force(certificate: ClientCertificate, now: float, skew_seconds: int) -> Verdict:
    """Return the verdict for the right certificate: refused before its time and after it."""
    in_force = certificate.is_in_force(now, skew_seconds)
    return Verdict(_CREDENTIAL, "" if in_force else "certificate_expired")
