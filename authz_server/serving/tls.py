"""The TLS of a listener, with its files as they were when its settings came into force."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from authz_server.serving.listeners import ServingError
from authz_server.serving.private_files import private_paths
from authz_server.settings import (
    ClientCertificateSettings,
    Role,
    ServerSettings,
    Settings,
    SettingsError,
)
from keys.private_files import open_regular

#: The cipher suites of TLS 1.2 (RFC 9325, 4.2), which are all that FAPI 2.0, 5.2.2 permits.
_TLS_1_2_CIPHERS = ":".join(
    f"ECDHE-{key}-{suite}"
    for suite in ("AES128-GCM-SHA256", "AES256-GCM-SHA384")
    for key in ("ECDSA", "RSA")
)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The content of the files of a listener.

    A worker that replaces another one uses them, even if the files were changed since.

    Attributes:
        certificate: the certificate chain in PEM.
        private_key: its private key in PEM.
        authorities: the authorities of clients in PEM; empty: clients need no certificate.
    """

    certificate: bytes
    private_key: bytes = field(repr=False)
    authorities: bytes = b""


def read_all_tls(settings: Settings) -> Mapping[Role, TlsFiles | None]:
    """Return the files of each listener.

    Raises:
        ServingError: one cannot be read.
        SettingsError: likewise, for the authorities of clients.
    """
    clients = settings.client_certificates
    try:
        return {role: read_tls_files(each, clients) for role, each in settings.listeners().items()}
    except OSError as error:
        raise ServingError(f"{error.filename} cannot be read ({error.strerror})") from error


def read_tls_files(
    server: ServerSettings, clients: ClientCertificateSettings | None = None
) -> TlsFiles | None:
    """Return the files of a listener; None for plain HTTP.

    Raises:
        OSError: a file cannot be read.
        SettingsError: the file of the authorities cannot be read.
    """
    if not server.tls_certificate:
        return None
    authorities = b""
    if clients is not None and clients.source == "listener":
        try:
            authorities = _read(clients.ca_file)
        except OSError as error:
            raise _without_authorities(clients) from error
    return TlsFiles(_read(server.tls_certificate), _read(server.tls_private_key), authorities)


def _read(path: str) -> bytes:
    # Not a pipe: the thread of a reload would wait for ever, and later ones with it.
    with open_regular(path) as file:
        return file.read()


@lru_cache(maxsize=4)
def read_validity(certificate: bytes) -> tuple[datetime, datetime]:
    """Return the times between which every certificate of a chain is valid.

    Args:
        certificate: the chain in PEM.

    Raises:
        ValueError: it cannot be read.
    """
    # Only a listener with TLS needs the library.
    from cryptography import x509  # noqa: PLC0415

    chain = x509.load_pem_x509_certificates(certificate)
    begin = max(each.not_valid_before_utc for each in chain)
    return begin, min(each.not_valid_after_utc for each in chain)


def tls_context(
    server: ServerSettings,
    clients: ClientCertificateSettings | None = None,
    files: TlsFiles | None = None,
) -> ssl.SSLContext | None:
    """Return the TLS context of a listener; None for plain HTTP.

    With the source ``listener``, clients are asked for a certificate, and a handshake with one
    that leads to no known authority fails.

    Args:
        server: the settings of the listener.
        clients: how clients' certificates are found.
        files: the content of its files; None: they are read.

    Raises:
        OSError: the certificate or its key cannot be read or used.
        SettingsError: the file of the authorities has no certificate.
    """
    files = files or read_tls_files(server, clients)
    if files is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS_1_2_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    contents = (files.certificate, files.private_key, files.authorities)
    # OpenSSL reads a key from a file alone.
    with private_paths(contents) as (certificate, private_key, authorities):
        context.load_cert_chain(certificate, private_key)
        if clients is not None and clients.source == "listener":
            try:
                context.load_verify_locations(authorities)
            except OSError as error:
                raise _without_authorities(clients) from error
            context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _without_authorities(clients: ClientCertificateSettings) -> SettingsError:
    problem = f"{clients.ca_file} has no certificate that can be read"
    return SettingsError(problem, key="client_certificates.ca_file")
