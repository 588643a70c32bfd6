"""Syntax of scope names."""

import re

from authz_server.errors import InvalidChangeError

MAXIMUM_NAME_CHARACTERS = 200

# A subset of RFC 6749, 3.3 without wildcards, quotes and empty segments.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:~-]*(?:/[A-Za-z0-9][A-Za-z0-9_.:~-]*)*")


def require_scope_name(name: str) -> str:
    """Return ``name`` if it is a valid canonical name or alias.

    A name consists of segments separated by single slashes. Each segment begins with a letter or
    digit, followed by letters, digits and ``_ . : ~ -``. Case is significant.

    Raises:
        InvalidChangeError: the name has another form or more than 200 characters.
    """
    if len(name) > MAXIMUM_NAME_CHARACTERS or not _NAME.fullmatch(name) or ".." in name:
        raise InvalidChangeError(
            f"scope: {name[:MAXIMUM_NAME_CHARACTERS]!r} is not a valid scope name; use segments of "
            "letters, digits and _ . : ~ - separated by single slashes, such as mapper/link"
        )
    return name
