"""Check the files and URLs by which the server trusts others: authorities, issuers, provider."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

from authz_server.assembly import utc_now
from authz_server.clients.certificate_chains import read_authorities
from authz_server.clients.issuers import parse_bundle
from authz_server.clients.outbound import UrlRefusedError, split_url
from authz_server.settings import Settings, SettingsError
from authz_server.settings.trust import IssuerSettings
from keys.errors import KeysError
from keys.jose.foreign import parse_published_key_set


def check_trust(settings: Settings) -> None:
    """Require that the files hold what is expected of them, and that the URLs can be fetched from.

    Raises:
        SettingsError: names the key of the first file or URL that cannot be used.
    """
    for key, name in _authorities(settings):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(name)
        except OSError as error:
            raise SettingsError(f"{name} has no certificate that can be read", key=key) from error
    try:
        if settings.client_certificates.ca_file:
            read_authorities(settings.client_certificates.ca_file, utc_now)
    except ValueError as error:
        problem = "a certificate in it cannot be read"
        raise SettingsError(problem, key="client_certificates.ca_file") from error
    plain_http = settings.outbound.plain_http
    for name, issuer in settings.issuers.items():
        _check_issuer(f"issuers.{name}", issuer, plain_http=plain_http)
    if settings.admin.openid.issuer:
        openid = settings.admin.openid
        _check_url("admin.openid.issuer", openid.issuer, plain_http=openid.uses_plain_http)


def _authorities(settings: Settings) -> Iterator[tuple[str, str]]:
    yield from (
        (key, name)
        for key, name in {
            "client_certificates.ca_file": settings.client_certificates.ca_file,
            "outbound.ca_file": settings.outbound.ca_file,
            **{f"issuers.{name}.ca_file": each.ca_file for name, each in settings.issuers.items()},
            **{
                f"keys.vaults.{name}.ca_file": each.ca_file
                for name, each in settings.keys.vaults.items()
            },
        }.items()
        if name
    )


def _check_issuer(key: str, issuer: IssuerSettings, *, plain_http: bool) -> None:
    if issuer.jwks_file:
        parse = parse_bundle if issuer.is_spiffe else parse_published_key_set
        _read(f"{key}.jwks_file", issuer.jwks_file, parse)
    elif issuer.jwks_uri:
        _check_url(f"{key}.jwks_uri", issuer.jwks_uri, plain_http=plain_http)
    else:
        _check_url(f"{key}.issuer", issuer.issuer, plain_http=plain_http)
    if issuer.token_file:
        _read(f"{key}.token_file", issuer.token_file, bytes.decode)


def _check_url(key: str, url: str, *, plain_http: bool) -> None:
    try:
        split_url(url, plain_http=plain_http)
    except UrlRefusedError as error:
        raise SettingsError(str(error), key=key) from error


def _read(key: str, name: str, parse: Callable[[bytes], object]) -> None:
    try:
        parse(Path(name).read_bytes())
    except OSError as error:
        raise SettingsError(f"{name} cannot be read ({error.strerror})", key=key) from error
    except (KeysError, ValueError) as error:
        raise SettingsError(f"{name} cannot be used: {error}", key=key) from error
