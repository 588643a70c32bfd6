"""Check the files and URLs by which the server trusts others: authorities, issuers, provider."""

import codecs
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from authz_server.assembly import utc_now
from authz_server.clients.certificate_chains import read_authorities
from authz_server.clients.issuers import parse_bundle
from authz_server.clients.outbound import UrlRefusedError, split_url
from authz_server.settings import Settings, SettingsError
from authz_server.settings.sources import describe_refusal
from authz_server.settings.trust import IssuerSettings
from keys.errors import KeysError
from keys.jose.foreign import parse_published_key_set


def check_trust(settings: Settings) -> None:
    """Require that the authorities of client certificates can be read, where a proxy needs them.

    A listener reads them itself, for its handshakes.

    Raises:
        SettingsError: they cannot be read.
    """
    certificates = settings.client_certificates
    if not (certificates.are_from_proxy and certificates.ca_file):
        return
    try:
        read_authorities(certificates.ca_file, utc_now)
    except (OSError, ValueError) as error:
        problem = f"{certificates.ca_file} has no certificate that can be read"
        raise SettingsError(problem, key="client_certificates.ca_file") from error


def find_trust_faults(settings: Settings) -> Iterator[SettingsError]:
    """Yield the faults of files and URLs by which the server trusts one party, or fetches from it.

    The server starts with them: what needs the file or the URL is refused until it is mended.
    """
    for check in _checks(settings):
        try:
            check()
        except SettingsError as error:
            yield error


def _checks(settings: Settings) -> Iterator[Callable[[], None]]:
    yield partial(_check_authorities, "outbound.ca_file", settings.outbound.ca_file)
    for name, vault in settings.keys.vaults.items():
        yield partial(_check_authorities, f"keys.vaults.{name}.ca_file", vault.ca_file)
    plain_http = settings.outbound.plain_http
    for name, issuer in settings.issuers.items():
        key = f"issuers.{name}"
        yield partial(_check_authorities, f"{key}.ca_file", issuer.ca_file)
        yield partial(_check_issuer_keys, key, issuer, plain_http=plain_http)
        if issuer.token_file:
            yield partial(_read, f"{key}.token_file", issuer.token_file, bytes.decode)
    openid = settings.admin.openid
    if openid.issuer:
        key = "admin.openid.issuer"
        yield partial(_check_url, key, openid.issuer, plain_http=openid.uses_plain_http)
    yield partial(_check_folder, "g2p.catalogue_directory", settings.g2p.catalogue_directory)


def _check_authorities(key: str, name: str) -> None:
    try:
        if name:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(name)
    except OSError as error:
        raise SettingsError(f"{name} has no certificate that can be read", key=key) from error


def _check_issuer_keys(key: str, issuer: IssuerSettings, *, plain_http: bool) -> None:
    if issuer.jwks_file:
        parse = parse_bundle if issuer.is_spiffe else parse_published_key_set
        _read(f"{key}.jwks_file", issuer.jwks_file, parse)
    elif issuer.jwks_uri:
        _check_url(f"{key}.jwks_uri", issuer.jwks_uri, plain_http=plain_http)
    else:
        _check_url(f"{key}.issuer", issuer.issuer, plain_http=plain_http)


def _check_url(key: str, url: str, *, plain_http: bool) -> None:
    try:
        split_url(url, plain_http=plain_http)
    except UrlRefusedError as error:
        raise SettingsError(str(error), key=key) from error


def _check_folder(key: str, name: str) -> None:
    if name and not Path(name).is_dir():
        raise SettingsError(f"{name} is not a folder", key=key)


def _read(key: str, name: str, parse: Callable[[bytes], object]) -> None:
    try:
        parse(Path(name).read_bytes().removeprefix(codecs.BOM_UTF8))
    except OSError as error:
        reason = describe_refusal(Path(name), error)
        raise SettingsError(f"{name} cannot be read ({reason})", key=key) from error
    except (KeysError, ValueError) as error:
        raise SettingsError(f"{name} cannot be used: {error}", key=key) from error
