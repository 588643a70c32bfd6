"""The TLS certificate of a client, as ``authz_server.clients.certificate_parser`` reads it."""

import ipaddress

import msgspec

#: A distinguished name: for each RDN, in the order of the certificate, its types and values.
DistinguishedName = tuple[tuple[tuple[str, str], ...], ...]


class ClientCertificate(msgspec.Struct, frozen=True):
    """The certificate of a TLS client.

    Attributes:
        der: the certificate in DER.
        thumbprint: SHA-256 of ``der`` in base64url, as in ``x5t#S256`` (RFC 8705, 3.1).
        subject: the subject's distinguished name as text (RFC 4514).
        subject_name: the same for comparison.
        dns_names: the ``dNSName`` entries of the subject alternative name, in lower case.
        uris: its ``uniformResourceIdentifier`` entries.
        ip_addresses: its ``iPAddress`` entries, in canonical text.
        emails: its ``rfc822Name`` entries, with the domain in lower case.
        not_before: the start of the validity, in seconds since 1970 UTC.
        not_after: its end, likewise; this second still belongs to it.
        chain: the intermediate certificates that came with it, in DER.
        is_verified: whether the TLS front, or the server's own listener, has verified its chain.
    """

    der: bytes
    thumbprint: str
    subject: str
    subject_name: DistinguishedName
    dns_names: frozenset[str]
    uris: frozenset[str]
    ip_addresses: frozenset[str]
    emails: frozenset[str]
    not_before: float
    not_after: float
    chain: tuple[bytes, ...] = ()
    is_verified: bool = False

    def is_in_force(self, now: float, skew_seconds: float = 0.0) -> bool:
        """Return whether ``now`` lies within the validity, whose start may lie ahead by the skew.

        Args:
            now: seconds since 1970 UTC.
            skew_seconds: how far the issuer's clock may be ahead.
        """
        return self.not_before - skew_seconds <= now < self.not_after + 1


def normalise_email(address: str) -> str:
    """Return an address with its domain in lower case (RFC 5280, 7.5)."""
    local, at, domain = address.rpartition("@")
    return f"{local}{at}{domain.lower()}"


def normalise_ip(text: str) -> str:
    """Return the canonical text of an IP address; ValueError for other text."""
    return str(ipaddress.ip_address(text))
