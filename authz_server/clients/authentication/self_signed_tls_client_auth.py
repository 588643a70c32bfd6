"""``self_signed_tls_client_auth``: a certificate that the client has registered (RFC 8705, 2.2)."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar

from authz_server.clients.authentication.method import (
    AuthenticationRequest,
    ClientAuthenticationMethod,
    Credentials,
    Reading,
    Verdict,
)
from authz_server.clients.authentication.tls_client_auth import (
    claimed_by_certificate,
    verdict_in_force,
)
from authz_server.clients.cache import ClientCache, ClientEntry
from authz_server.clients.certificate_names import SELF_SIGNED_TLS_CLIENT_AUTH
from authz_server.clients.certificate_parser import key_thumbprint_of, parse_certificate
from authz_server.clients.fetching import FetchError
from authz_server.clients.key_sets import KeySets

_WRONG = Verdict(cause="certificate_wrong")


class SelfSignedTlsClientAuth(ClientAuthenticationMethod):
    """Looks for the certificate, or its key, in the keys that the client has registered.

    No chain is verified: the registration is what makes the certificate the client's. RFC 8705
    leaves it to the server whether an expired certificate is accepted; it is not.

    Args:
        directory: the clients in memory.
        key_sets: finds the clients' keys.
        clock_skew_seconds: how far ahead the validity of a certificate may begin.
    """

    IS_KEYED: ClassVar[bool] = True
    NAMES: ClassVar[tuple[str, ...]] = (SELF_SIGNED_TLS_CLIENT_AUTH,)
    REGISTRATIONS: ClassVar[Mapping[str, Sequence[str]]] = {SELF_SIGNED_TLS_CLIENT_AUTH: NAMES}

    def __init__(self, directory: ClientCache, key_sets: KeySets, clock_skew_seconds: int) -> None:
        self._directory = directory
        self._key_sets = key_sets
        self._clock_skew_seconds = clock_skew_seconds

    def recognise(self, request: AuthenticationRequest) -> Credentials | None:
        """Return the certificate of a client of this method."""
        certificate, client_id = request.certificate, claimed_by_certificate(request)
        if certificate is None or client_id is None:
            return None
        client = self._directory.find(client_id)
        if client is None or client.authentication_method != SELF_SIGNED_TLS_CLIENT_AUTH:
            return None
        return Credentials(SELF_SIGNED_TLS_CLIENT_AUTH, (Reading(client_id, certificate.der),))

    def verify(self, reading: Reading, client: ClientEntry, address: str, now: float) -> Verdict:
        """Look in the registered set; if the keys are at an address, return a further check."""
        del address
        properties, der = client.properties, reading.proof
        if properties.jwks_uri is not None:
            further = partial(self._verify_published, der, properties.jwks_uri, now)
            return Verdict(cause="certificate_wrong", further=further)
        keys = self._key_sets.read_inline(client.id, properties.jwks)
        if not keys.holds_certificate(der, key_thumbprint_of(der)):
            return _WRONG
        return self._judge_time(der, now)

    async def _verify_published(self, der: bytes, uri: str, now: float) -> Verdict:
        try:
            holds = await self._key_sets.holds_published_certificate(
                uri, der, key_thumbprint_of(der)
            )
        except FetchError:
            return Verdict(cause="certificate_keys_unavailable")
        return self._judge_time(der, now) if holds else _WRONG

    def _judge_time(self, der: bytes, now: float) -> Verdict:
        return verdict_in_force(parse_certificate(der), now, self._clock_skew_seconds)
