"""Compares the identifiers of resource servers as URIs (RFC 3986, 6.2)."""

import re
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv6Address
from urllib.parse import unquote_to_bytes, urlsplit

#: RFC 3986, 2: the characters of a URI that has no fragment (RFC 8707, 2).
_CHARACTERS = re.compile(r"[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]+")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
_DEFAULT_PORTS = {"https": 443, "http": 80}


@lru_cache(maxsize=1_024)
def normalised(identifier: str) -> str:
    """Return the normalised form, which all equivalent URIs share.

    The case of scheme, host and escapes, needless escapes, zeros in an IPv6 address, the scheme's
    default port, dot segments and an empty path make no difference (RFC 3986, 6.2.2 and 6.2.3). A
    text that is neither a URN nor a URI with a host, has a fragment or contains a user is returned
    unchanged.
    """
    if not _CHARACTERS.fullmatch(identifier):
        return identifier
    try:
        parts = urlsplit(identifier)
        port = parts.port
    except ValueError:
        return identifier
    scheme = parts.scheme.lower()
    if scheme == "urn":
        namespace, _, rest = parts.path.partition(":")
        # RFC 8141, 3.1: the rest of a URN is case-sensitive, except for its escapes.
        return f"urn:{namespace.lower()}:{_ESCAPE.sub(lambda found: found[0].upper(), rest)}"
    host = _normalised_host(parts.hostname or "", is_literal=parts.netloc.startswith("["))
    if not scheme or not host or "@" in parts.netloc:
        return identifier
    if port is not None and port != _DEFAULT_PORTS.get(scheme):
        host = f"{host}:{port}"
    query = f"?{_normalised_escapes(parts.query)}" if parts.query else ""
    return f"{scheme}://{host}{_without_dots(_normalised_escapes(parts.path)) or '/'}{query}"


def _normalised_host(host: str, *, is_literal: bool) -> str:
    """Return the host in one form; an IPv6 address is written as in RFC 5952."""
    if not is_literal:
        return _normalised_escapes(host).lower()
    with suppress(ValueError):
        host = IPv6Address(host).compressed
    return f"[{host.lower()}]"


def _normalised_escapes(text: str) -> str:
    return _ESCAPE.sub(_normalised_escape, text)


def _normalised_escape(found: re.Match[str]) -> str:
    character = unquote_to_bytes(found[0]).decode("latin-1")
    return character if _UNRESERVED.fullmatch(character) else found[0].upper()


def _without_dots(path: str) -> str:
    """Return the path without ``.`` and ``..`` (RFC 3986, 5.2.4)."""
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            if len(kept) > 1:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", ".."}:
        kept.append("")
    return "/".join(kept)
