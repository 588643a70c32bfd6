"""Verify the chain of a client's certificate against certification authorities of our own."""

from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from authz_server.clients.certificates import ClientCertificate

_MAXIMUM_INTERMEDIATES = 4


class ChainVerifier:
    """Verifies that certificates lead to one of the given authorities (RFC 5280, 6).

    Revocation lists are not read.

    Args:
        authorities: PEM, one or more certificates.
        clock: returns the present time.

    Raises:
        ValueError: there is no readable certificate.
    """

    def __init__(self, authorities: bytes, clock: Callable[[], datetime]) -> None:
        self._store = Store(x509.load_pem_x509_certificates(authorities))
        self._clock = clock
        # A subject alternative name and an authority key identifier are usual, not required:
        # RFC 8705 permits certificates that have a subject only.
        leaf = (
            ExtensionPolicy.webpki_defaults_ee()
            .may_be_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
            .may_be_present(x509.AuthorityKeyIdentifier, Criticality.AGNOSTIC, None)
        )
        self._builder = (
            PolicyBuilder()
            .store(self._store)
            .max_chain_depth(_MAXIMUM_INTERMEDIATES)
            .extension_policies(ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=leaf)
        )

    def is_valid(self, certificate: ClientCertificate) -> bool:
        """Return whether the certificate is valid now for TLS clients, by its chain."""
        verifier = self._builder.time(self._clock()).build_client_verifier()
        try:
            verifier.verify(
                x509.load_der_x509_certificate(certificate.der), _load(certificate.chain)
            )
        except (VerificationError, UnsupportedAlgorithm, ValueError):
            return False
        return True


def read_authorities(path: str, clock: Callable[[], datetime]) -> ChainVerifier:
    """Return the verifier for the authorities in a PEM file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has no certificate that can be read.
    """
    return ChainVerifier(Path(path).read_bytes(), clock)


def _load(chain: Iterable[bytes]) -> list[x509.Certificate]:
    return [x509.load_der_x509_certificate(der) for der in chain]
