"""Certificates of TLS clients: issued by an authority of a test, or self-signed."""

import ssl
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from keys.jose.jwk import public_jwk

SUBJECT = "CN=payer,O=Ministry of Social Affairs,C=KE"


class ClientKey(NamedTuple):
    """A private key with its certificate, and the certificates of its issuers."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    issuers: tuple[x509.Certificate, ...] = ()

    @property
    def der(self) -> bytes:
        """The certificate in DER."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> str:
        """The certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def jwk(self, *, with_certificate: bool = True) -> dict[str, object]:
        """Return the key as a JWK, with or without `x5c`."""
        members: dict[str, object] = dict(public_jwk(self.key))
        return members | {"x5c": [b64encode(self.der).decode()]} if with_certificate else members

    def write(self, folder: Path, name: str) -> Path:
        """Write key and certificates into one PEM file that only its owner reads."""
        private = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = (self.certificate, *self.issuers)
        path = folder / f"{name}.pem"
        path.touch(0o600)
        path.write_bytes(private + b"".join(each.public_bytes(Encoding.PEM) for each in chain))
        return path


def header_value(kind: str, der: bytes, chain: Sequence[bytes] = ()) -> dict[str, str]:
    """Return the headers in which a proxy of this kind passes a certificate that it verified."""
    if kind == "client-cert":
        headers = {"Client-Cert": byte_sequence(der)}
        if chain:
            headers["Client-Cert-Chain"] = ", ".join(map(byte_sequence, chain))
        return headers
    if kind == "nginx":
        return {"X-SSL-Client-Cert": escaped_pem(der), "X-SSL-Client-Verify": "SUCCESS"}
    if kind == "haproxy":
        return {"X-SSL-Client-Cert": b64encode(der).decode(), "X-SSL-Client-Verify": "0"}
    element = (
        f'By=spiffe://proxy;Cert="{escaped_pem(der)}";Subject="CN=a\\"b,O=c";URI=urn:a;URI=urn:b'
    )
    if chain:
        whole = "".join(escaped_pem(each) for each in (der, *chain))
        element += f';Chain="{whole}"'
    return {"X-Forwarded-Client-Cert": element}


def byte_sequence(der: bytes) -> str:
    """Return bytes as a structured field (RFC 8941, 3.3.5)."""
    return f":{b64encode(der).decode()}:"


def escaped_pem(der: bytes) -> str:
    """Return a certificate as nginx and Envoy write it: PEM, percent-encoded."""
    return quote(ssl.DER_cert_to_PEM_cert(der), safe="")


class ClientAuthority:
    """An authority that issues certificates to clients.

    Args:
        issuer: the authority above; None for a root.
    """

    def __init__(self, issuer: "ClientAuthority | None" = None) -> None:
        self._issuer = issuer
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name.from_rfc4514_string(f"CN=Clients {'of root' if issuer else 'root'}")
        above = issuer or self
        builder = _builder(self.name, above.name, self.key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        builder = builder.add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        self.certificate = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(above.key.public_key()),
            critical=False,
        ).sign(above.key, SHA256())

    @property
    def pem(self) -> bytes:
        """The authority's certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(self, subject: str = SUBJECT, **options: object) -> ClientKey:
        """Return a key with a certificate; the options are those of :func:`make_certificate`."""
        issuers = () if self._issuer is None else (self.certificate,)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = make_certificate(subject, key, self.name, self.key, **options)
        return ClientKey(key, certificate, issuers)


def self_signed(
    subject: str | x509.Name = SUBJECT,
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    issuer: ClientKey | None = None,
    **options: object,
) -> ClientKey:
    """Return a key with a certificate that it, or another client's key, has signed."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    signer, name = (issuer.key, issuer.certificate.subject) if issuer else (key, _name(subject))
    return ClientKey(key, make_certificate(subject, key, name, signer, **options))


def make_certificate(  # noqa: PLR0913 - the parts of a certificate
    subject: str | x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    names: Sequence[x509.GeneralName] = (),
    starts: timedelta = timedelta(minutes=-5),
    ends: timedelta = timedelta(days=1),
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
) -> x509.Certificate:
    """Return a certificate; its validity begins and ends that long after now."""
    builder = _builder(_name(subject), issuer, key, starts, ends)
    builder = builder.add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    ).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
        critical=False,
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, SHA256())


def all_names() -> tuple[x509.GeneralName, ...]:
    """Return a subject alternative name of every registered kind."""
    return (
        x509.DNSName("Payer.Ministry.example"),
        x509.UniformResourceIdentifier("spiffe://ministry.example/payer"),
        x509.IPAddress(ip_address("2001:db8::17")),
        x509.RFC822Name("Payer@Ministry.example"),
    )


def _name(subject: str | x509.Name) -> x509.Name:
    return subject if isinstance(subject, x509.Name) else x509.Name.from_rfc4514_string(subject)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    starts: timedelta = timedelta(minutes=-5),
    ends: timedelta = timedelta(days=1),
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + starts)
        .not_valid_after(now + ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*permitted: str) -> x509.KeyUsage:
    known = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in permitted for name in known})
