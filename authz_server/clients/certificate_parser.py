"""Read X.509 certificates, and the names by which clients are registered (RFC 8705, 2.1.2)."""

import hashlib
import re
import unicodedata
from base64 import urlsafe_b64encode
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import NameOID, ObjectIdentifier

from authz_server.clients.certificates import (
    ClientCertificate,
    DistinguishedName,
    normalise_email,
)
from keys.errors import KeysError
from keys.jose.jwk import public_jwk, thumbprint
from keys.jose.signatures import PublicKey

_CACHED_CERTIFICATES = 256
_CACHED_NAMES = 1_024

# Names beyond those of RFC 4514, 3, as OpenSSL, Java and the eIDAS profiles write them.
_FURTHER_NAMES = {
    "E": NameOID.EMAIL_ADDRESS,
    "emailAddress": NameOID.EMAIL_ADDRESS,
    "serialNumber": NameOID.SERIAL_NUMBER,
    "organizationIdentifier": NameOID.ORGANIZATION_IDENTIFIER,
    "businessCategory": NameOID.BUSINESS_CATEGORY,
    "jurisdictionC": NameOID.JURISDICTION_COUNTRY_NAME,
    "jurisdictionL": NameOID.JURISDICTION_LOCALITY_NAME,
    "jurisdictionST": NameOID.JURISDICTION_STATE_OR_PROVINCE_NAME,
    "postalCode": NameOID.POSTAL_CODE,
    "dnQualifier": NameOID.DN_QUALIFIER,
    "GN": NameOID.GIVEN_NAME,
    "SN": NameOID.SURNAME,
    "title": NameOID.TITLE,
}
_STANDARD_NAMES = {
    "CN": NameOID.COMMON_NAME,
    "L": NameOID.LOCALITY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "C": NameOID.COUNTRY_NAME,
    "STREET": NameOID.STREET_ADDRESS,
    "DC": NameOID.DOMAIN_COMPONENT,
    "UID": NameOID.USER_ID,
}
# The names of attribute types are compared without case (RFC 4512, 2.5).
_NAMES: dict[str, ObjectIdentifier] = {
    spelling: oid
    for name, oid in (_STANDARD_NAMES | _FURTHER_NAMES).items()
    for spelling in {name, name.lower(), name.upper()}
}
#: Types whose equality rule ignores case (RFC 4519; RFC 2985 for addresses).
_WITHOUT_CASE = frozenset(oid.dotted_string for oid in _NAMES.values())
#: An attribute of a name as text: commas and plus signs with a backslash belong to it.
_ATTRIBUTE = re.compile(r"(?:\\.|[^\\,+])+", re.DOTALL)
_LOWER = {ord(upper): upper.lower() for upper in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}

# Some are no ValueError; a test run turns the library's warnings into errors.
_UNREADABLE = (
    ValueError,
    TypeError,
    Warning,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@lru_cache(_CACHED_CERTIFICATES)
def parse_certificate(der: bytes) -> ClientCertificate:
    """Return the parts of a certificate; its signature is not checked.

    Raises:
        ValueError: ``der`` is not exactly one X.509 certificate that can be read.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = _alternative_names(certificate)
        return ClientCertificate(
            der=der,
            thumbprint=thumbprint_of(der),
            subject=certificate.subject.rfc4514_string(),
            subject_name=_comparable(certificate.subject),
            dns_names=frozenset(name.lower() for name in names.get_values_for_type(x509.DNSName)),
            uris=frozenset(names.get_values_for_type(x509.UniformResourceIdentifier)),
            ip_addresses=frozenset(map(str, names.get_values_for_type(x509.IPAddress))),
            emails=frozenset(map(normalise_email, names.get_values_for_type(x509.RFC822Name))),
            not_before=certificate.not_valid_before_utc.timestamp(),
            not_after=certificate.not_valid_after_utc.timestamp(),
        )
    except _UNREADABLE as error:
        raise ValueError("not a readable X.509 certificate") from error


def thumbprint_of(der: bytes) -> str:
    """Return the SHA-256 of a certificate in base64url without padding (RFC 8705, 3.1)."""
    return urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


@lru_cache(_CACHED_CERTIFICATES)
def key_thumbprint_of(der: bytes) -> str:
    """Return the RFC 7638 thumbprint of a certificate's key; empty for a key without JWK.

    Args:
        der: a certificate that :func:`parse_certificate` reads.
    """
    try:
        key = x509.load_der_x509_certificate(der).public_key()
        return thumbprint(public_jwk(key)) if isinstance(key, PublicKey) else ""
    except (*_UNREADABLE, KeysError):
        return ""


@lru_cache(_CACHED_NAMES)
def parse_name(text: str) -> DistinguishedName:
    """Return a distinguished name for comparison.

    Two names are equal if their RDNs are, in order. Two RDNs are equal if they have the same types
    with the same values, in any order (RFC 4517, 4.2.15). Values of the usual types are compared
    without the case of ASCII letters and with runs of spaces as one. Other characters have to be
    the same: the further mappings of RFC 4518 would make different names equal.

    Args:
        text: the string representation of RFC 4514, such as ``CN=payer,O=Ministry,C=KE``.

    Raises:
        ValueError: the text is malformed or empty, or has a value in hexadecimal.
    """
    # A value behind "#" is BER, whose text depends on the type of the string.
    if any(part.partition("=")[2].startswith("#") for part in _ATTRIBUTE.findall(text)):
        raise ValueError("write values as text, not in hexadecimal")
    try:
        name = x509.Name.from_rfc4514_string(text, _NAMES)
    except (ValueError, Warning) as error:
        raise ValueError("not a distinguished name of RFC 4514, such as CN=payer,C=KE") from error
    if not name.rdns:
        raise ValueError("the name is empty")
    return _comparable(name)


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])
    return found.value


def _comparable(name: x509.Name) -> DistinguishedName:
    return tuple(
        tuple(sorted((each.oid.dotted_string, _comparable_value(each)) for each in rdn))
        for rdn in name.rdns
    )


def _comparable_value(attribute: x509.NameAttribute[str | bytes]) -> str:
    value = attribute.value
    if isinstance(value, bytes):
        return f"#{value.hex()}"
    if attribute.oid.dotted_string not in _WITHOUT_CASE:
        return value
    text = unicodedata.normalize("NFC", value).translate(_LOWER)
    return " ".join(part for part in text.split(" ") if part)
