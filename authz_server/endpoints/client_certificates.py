"""Find the TLS certificate of the client that sent a request (RFC 8705).

The connection's own certificate counts for the source ``listener``. For the other sources a
trusted proxy passes the certificate in a header; the header of any other peer is ignored.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Protocol
from urllib.parse import unquote_to_bytes

import msgspec

from authz_server.clients.certificate_parser import parse_certificate
from authz_server.clients.certificates import ClientCertificate
from authz_server.endpoints.client_address import ClientAddressReader
from authz_server.endpoints.request import Request
from authz_server.errors import OAuthError
from authz_server.settings import ClientCertificateSettings

CLIENT_CERT = "client-cert"
CLIENT_CERT_CHAIN = "client-cert-chain"
FORWARDED_CLIENT_CERT = "x-forwarded-client-cert"
_SSL_CLIENT_CERT = "x-ssl-client-cert"
_SSL_CLIENT_VERIFY = "x-ssl-client-verify"
#: By source: the header with the certificate, and the header with the result of its verification.
_HEADERS = {
    "client-cert": (CLIENT_CERT, ""),
    "nginx": (_SSL_CLIENT_CERT, _SSL_CLIENT_VERIFY),
    "haproxy": (_SSL_CLIENT_CERT, _SSL_CLIENT_VERIFY),
    "envoy": (FORWARDED_CLIENT_CERT, ""),
}
#: nginx writes the word, HAProxy the number of OpenSSL's error.
_VERIFIED = {"nginx": frozenset({"SUCCESS"}), "haproxy": frozenset({"0"})}
_VERIFIED_BY_ANY = frozenset({"SUCCESS", "0"})

_CACHED_HEADERS = 256
_MAXIMUM_CHAIN = 8

# RFC 8941, 3.3.5; RFC 9440 defines no parameters.
_BYTE_SEQUENCE = re.compile(r":([A-Za-z0-9+/]*={0,2}):")
_PEM = re.compile(rb"\s*-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# An element of Envoy's header: pairs with semicolons between them; a value may be quoted.
_PAIR = re.compile(r'([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^",;]*))([;,]|\Z)')
_QUOTED_PAIR = re.compile(r"\\(.)")


class CertificateReader(Protocol):
    """Finds the certificate of the client that sent a request."""

    def read(self, request: Request) -> ClientCertificate | None:
        """Return the certificate; None if the client has shown none.

        Raises:
            OAuthError: ``client_certificate_malformed``; it cannot be read.
        """


def certificate_reader(
    settings: ClientCertificateSettings, trusted_proxies: Iterable[str]
) -> CertificateReader | None:
    """Return the reader for the configured source; None if certificates are off.

    Args:
        settings: the source, its headers and its proxies.
        trusted_proxies: IP addresses and networks of all proxies in front.
    """
    if settings.source == "off":
        return None
    if settings.source == "listener":
        return ListenerCertificates()
    return ForwardedCertificates(settings, trusted_proxies)


class ListenerCertificates:
    """Reads the certificate of the connection, whose chain the TLS handshake has verified."""

    def read(self, request: Request) -> ClientCertificate | None:
        """Return the certificate; None if the client has shown none.

        Raises:
            OAuthError: ``client_certificate_malformed``; it cannot be read.
        """
        if not request.peer_certificate:
            return None
        try:
            certificate = parse_certificate(request.peer_certificate)
        except ValueError as error:
            raise _malformed("of the connection") from error
        return msgspec.structs.replace(certificate, is_verified=True)


class ForwardedCertificates:
    """Reads the certificate in a trusted proxy's header.

    Args:
        settings: the source, its headers and its proxies.
        trusted_proxies: IP addresses and networks of all proxies in front.
    """

    def __init__(self, settings: ClientCertificateSettings, trusted_proxies: Iterable[str]) -> None:
        self._addresses = ClientAddressReader(settings.proxies or trusted_proxies)
        self._source = settings.source
        header, verify_header = _HEADERS[settings.source]
        self._header = settings.certificate_header or header
        if settings.front_verifies:
            verify_header = ""
        self._verify_header = settings.verify_header or verify_header
        self._verified = _VERIFIED.get(settings.source, _VERIFIED_BY_ANY)
        # With a file of authorities, the chain is verified when the client authenticates.
        self._counts_as_verified = settings.front_verifies or bool(settings.ca_file)
        self._others = tuple(sorted({name for name, _ in _HEADERS.values()} - {self._header}))
        self._parse = lru_cache(_CACHED_HEADERS)(_PARSERS[settings.source])

    def read(self, request: Request) -> ClientCertificate | None:
        """Return the certificate; None if the client has shown none, or another peer sent it.

        Raises:
            OAuthError: ``client_certificate_malformed``; the value cannot be read, or there are
                headers of several sources.
        """
        if not self._addresses.is_trusted_proxy(request.peer):
            return None
        headers = request.headers
        if any(headers.get(name) for name in self._others):
            # The proxy writes another header than the configured one, or a client wrote this one.
            raise _malformed("a header of another source")
        value = headers.get(self._header)
        chain = headers.get(CLIENT_CERT_CHAIN, "") if self._source == CLIENT_CERT else ""
        if not value:
            if chain:
                # RFC 9440, 2.3
                raise _malformed("a chain without a certificate")
            return None
        try:
            certificate = self._parse(value, chain)
        except ValueError as error:
            raise _malformed(f"{self._header}: {error}") from error
        if not self._is_verified(headers):
            return certificate
        return msgspec.structs.replace(certificate, is_verified=True)

    def _is_verified(self, headers: Mapping[str, str]) -> bool:
        if self._verify_header:
            return headers.get(self._verify_header) in self._verified
        return self._counts_as_verified


def _malformed(detail: str) -> OAuthError:
    return OAuthError("client_certificate_malformed", detail)


def _with_chain(certificates: list[bytes]) -> ClientCertificate:
    leaf, *chain = certificates
    if len(chain) > _MAXIMUM_CHAIN:
        raise ValueError("the chain is too long")
    for each in chain:
        parse_certificate(each)
    return msgspec.structs.replace(parse_certificate(leaf), chain=tuple(chain))


def _parse_client_cert(value: str, chain: str) -> ClientCertificate:
    """Read ``Client-Cert`` and ``Client-Cert-Chain`` (RFC 9440, 2)."""
    members = [value, *(chain.split(",") if chain else ())]
    return _with_chain([_byte_sequence(member.strip(" \t")) for member in members])


def _byte_sequence(text: str) -> bytes:
    found = _BYTE_SEQUENCE.fullmatch(text)
    if found is None:
        raise ValueError("not a byte sequence")
    return _from_base64(found[1])


def _parse_nginx(value: str, _chain: str) -> ClientCertificate:
    """Read ``$ssl_client_escaped_cert``: PEM, percent-encoded."""
    return parse_certificate(_single(_from_escaped_pem(value)))


def _parse_haproxy(value: str, _chain: str) -> ClientCertificate:
    """Read ``ssl_c_der,base64``."""
    return parse_certificate(_from_base64(value.strip(" \t")))


def _parse_envoy(value: str, _chain: str) -> ClientCertificate:
    """Read the last element of ``X-Forwarded-Client-Cert``, which the nearest proxy wrote."""
    element: dict[str, str] = {}
    position, end = 0, ","
    while position < len(value) or end == ";":
        if end == ",":
            element = {}
        found = _PAIR.match(value, position)
        if found is None:
            raise ValueError("not a list of elements")
        name, quoted, plain, end = found.groups()
        # URI and DNS may repeat; a certificate, its chain and its hash may not.
        if name in element and name in {"Cert", "Chain", "Hash"}:
            raise ValueError("a repeated key")
        element[name] = plain if quoted is None else _QUOTED_PAIR.sub(r"\1", quoted)
        position = found.end()
    if end:
        raise ValueError("an empty element")
    return _from_element(element)


def _from_element(element: dict[str, str]) -> ClientCertificate:
    chain = _from_escaped_pem(element["Chain"]) if element.get("Chain") else []
    leaf = _single(_from_escaped_pem(element["Cert"])) if element.get("Cert") else None
    if leaf is None and not chain:
        raise ValueError("neither Cert nor Chain")
    if leaf is not None and chain and chain[0] != leaf:
        raise ValueError("Cert and Chain differ")
    certificate = _with_chain(chain or [leaf or b""])
    stated = element.get("Hash")
    if stated and stated.lower() != sha256(certificate.der).hexdigest():
        raise ValueError("Hash is of another certificate")
    return certificate


def _from_escaped_pem(text: str) -> list[bytes]:
    if not text.isascii() or _BROKEN_ESCAPE.search(text):
        raise ValueError("not percent-encoded")
    pem, position, found = unquote_to_bytes(text), 0, []
    while position < len(pem):
        block = _PEM.match(pem, position)
        if block is None:
            raise ValueError("not PEM")
        found.append(_from_base64(b"".join(block[1].split()).decode()))
        position = block.end()
    return found


def _single(certificates: list[bytes]) -> bytes:
    if len(certificates) != 1:
        raise ValueError("not exactly one certificate")
    return certificates[0]


def _from_base64(text: str) -> bytes:
    try:
        # A parser has to accept a value without padding (RFC 8941, 4.2.7).
        return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (Base64Error, ValueError) as error:
        raise ValueError("not base64") from error


_PARSERS: dict[str, Callable[[str, str], ClientCertificate]] = {
    "client-cert": _parse_client_cert,
    "nginx": _parse_nginx,
    "haproxy": _parse_haproxy,
    "envoy": _parse_envoy,
}
