"""How scopes are spelled."""

import re

from authz_server.errors import InvalidChangeError

MAXIMUM_NAME_CHARACTERS = 200

# Inside the characters of RFC 6749, 3.3: no wildcard, no quote, nothing empty between slashes.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:~-]*(?:/[A-Za-z0-9][A-Za-z0-9_.:~-]*)*")


def require_scope_name(name: str) -> str:
    """Return ``name``, a canonical name or an alias.

    It is made of segments between single slashes; each begins with a letter or digit and goes on
    with letters, digits and ``_ . : ~ -``. Case matters.

    Raises:
        InvalidChangeError: it has another form or more than 200 characters.
    """
    if len(name) > MAXIMUM_NAME_CHARACTERS or not _NAME.fullmatch(name) or ".." in name:
        raise InvalidChangeError(
            f"scope: {name[:MAXIMUM_NAME_CHARACTERS]!r} is no scope name; use segments of letters, "
            "digits and _ . : ~ - between single slashes, such as mapper/link"
        )
    return name
