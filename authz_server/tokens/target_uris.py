"""Comparison of the URI of an endpoint with one that a client signed (RFC 9449, 4.3)."""

import re
from urllib.parse import urlsplit

_MAXIMUM_CHARACTERS = 2_048
_CHARACTERS = re.compile(r"[!-~]+")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_DEFAULT_PORTS = {"https": ":443", "http": ":80"}


def normalise_target(uri: str) -> str:
    """Return an ``http`` or ``https`` URI in normal form, without query and fragment.

    Normalises by syntax and by scheme (RFC 3986, 6.2.2 and 6.2.3): case of scheme and host,
    default port, empty path, dot segments, and percent-encoding.

    Returns:
        the empty string for anything else.
    """
    if len(uri) > _MAXIMUM_CHARACTERS or _CHARACTERS.fullmatch(uri) is None:
        return ""
    try:
        scheme, authority, path, _, _ = urlsplit(uri)
    except ValueError:
        return ""
    if scheme not in _DEFAULT_PORTS or not authority:
        return ""
    host = authority.lower().removesuffix(_DEFAULT_PORTS[scheme]).removesuffix(":")
    return f"{scheme}://{host}{_remove_dots(_ESCAPE.sub(_decode_unreserved, path))}"


def _decode_unreserved(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if character in _UNRESERVED else escape[0].upper()


def _remove_dots(path: str) -> str:
    """Return an absolute path without dot segments (RFC 3986, 5.2.4)."""
    kept: list[str] = []
    segments = path.split("/")[1:] or [""]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)
