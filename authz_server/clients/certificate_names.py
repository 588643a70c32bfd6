"""The name by which a client is registered for ``tls_client_auth`` (RFC 8705, 2.1.2)."""

import re
from collections.abc import Callable, Mapping

from authz_server.clients.certificates import (
    ClientCertificate,
    DistinguishedName,
    normalise_email,
    normalise_ip,
)
from authz_server.errors import InvalidChangeError

TLS_CLIENT_AUTH = "tls_client_auth"
SELF_SIGNED_TLS_CLIENT_AUTH = "self_signed_tls_client_auth"
SUBJECT_DN = "tls_client_auth_subject_dn"
SAN_DNS = "tls_client_auth_san_dns"
SAN_URI = "tls_client_auth_san_uri"
SAN_IP = "tls_client_auth_san_ip"
SAN_EMAIL = "tls_client_auth_san_email"
NAMES = (SUBJECT_DN, SAN_DNS, SAN_URI, SAN_IP, SAN_EMAIL)

_MAXIMUM_CHARACTERS = 1_024
_DNS = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)*"
)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e]+")
_EMAIL = re.compile(r"[\x21-\x3f\x41-\x7e]+@[A-Za-z0-9.-]+")


def _parse_name(text: str) -> DistinguishedName:
    # Few commands need the library for certificates, which takes long to import.
    from authz_server.clients.certificate_parser import parse_name  # noqa: PLC0415

    return parse_name(text)


def _check_subject_dn(text: str) -> str:
    try:
        _parse_name(text)
    except ValueError as error:
        raise InvalidChangeError(f"{SUBJECT_DN}: {error}") from error
    return text


def _check_dns(text: str) -> str:
    name = text.lower()
    if not _DNS.fullmatch(name):
        raise InvalidChangeError(f"{SAN_DNS}: use a host name, without wildcard")
    return name


def _check_uri(text: str) -> str:
    if not _URI.fullmatch(text):
        raise InvalidChangeError(f"{SAN_URI}: use an absolute URI")
    return text


def _check_ip(text: str) -> str:
    try:
        return normalise_ip(text)
    except ValueError as error:
        raise InvalidChangeError(f"{SAN_IP}: use an IP address") from error


def _check_email(text: str) -> str:
    if not _EMAIL.fullmatch(text):
        raise InvalidChangeError(f"{SAN_EMAIL}: use an address such as payer@example.org")
    return normalise_email(text)


_CHECKS: Mapping[str, Callable[[str], str]] = {
    SUBJECT_DN: _check_subject_dn,
    SAN_DNS: _check_dns,
    SAN_URI: _check_uri,
    SAN_IP: _check_ip,
    SAN_EMAIL: _check_email,
}


def _rule(field: str, check: Callable[[str], str]) -> Callable[[object], str]:
    def apply(value: object) -> str:
        if not isinstance(value, str) or not 0 < len(value) <= _MAXIMUM_CHARACTERS:
            raise InvalidChangeError(f"{field}: use 1 to {_MAXIMUM_CHARACTERS} characters")
        return check(value)

    return apply


#: By property: the rule that returns the value to store.
NAME_RULES: Mapping[str, Callable[[object], str]] = {
    field: _rule(field, check) for field, check in _CHECKS.items()
}


def registered_names(properties: object) -> list[tuple[str, str]]:
    """Return the names that a client's properties have, each with its property."""
    return [(field, value) for field in NAMES if (value := getattr(properties, field, ""))]


def require_one_name(properties: object) -> None:
    """Raise InvalidChangeError if there is more than one name (RFC 8705, 2.1.2)."""
    named = registered_names(properties)
    if len(named) > 1:
        raise InvalidChangeError(f"{named[1][0]}: use only one of {', '.join(NAMES)}")


def require_name(stored: Mapping[str, object]) -> None:
    """Raise InvalidChangeError if a client of ``tls_client_auth`` has no name.

    Args:
        stored: its properties, by name.
    """
    if not any(stored.get(name) for name in NAMES):
        raise InvalidChangeError(
            f"{SUBJECT_DN}: {TLS_CLIENT_AUTH} needs exactly one of {', '.join(NAMES)}"
        )


def is_named(certificate: ClientCertificate, properties: object) -> bool:
    """Return whether a certificate has the name in a client's properties.

    A DNS name, an address or a URI has to be one of the entries of the subject alternative name;
    the common name does not count as a DNS name, and wildcards match nothing.
    """
    named = registered_names(properties)
    if len(named) != 1:
        return False
    ((field, value),) = named
    if field == SUBJECT_DN:
        try:
            return _parse_name(value) == certificate.subject_name
        except ValueError:
            return False
    entries = {
        SAN_DNS: certificate.dns_names,
        SAN_URI: certificate.uris,
        SAN_IP: certificate.ip_addresses,
        SAN_EMAIL: certificate.emails,
    }
    return value in entries[field]
