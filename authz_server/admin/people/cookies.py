"""The cookie of the console: a random id, from which the CSRF token is derived."""

import hmac
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from wsgiref.types import WSGIEnvironment

#: The prefix binds it to the host, to https and to every path (RFC 6265bis, 4.1.3.2).
COOKIE = "__Host-authz-server"
_ID_BYTES = 32
_ID = re.compile(r"[A-Za-z0-9_-]{43}")
# Lax: the provider's redirect back is a navigation from another site.
_ATTRIBUTES = "Path=/; Secure; HttpOnly; SameSite=Lax"


def new_id() -> bytes:
    """Return a random id."""
    return secrets.token_bytes(_ID_BYTES)


def read_id(environ: WSGIEnvironment) -> bytes | None:
    """Return the id in the cookie of a request; None without one, or with several."""
    found = []
    for pair in environ.get("HTTP_COOKIE", "").split(";"):
        name, _, value = pair.strip(" ").partition("=")
        if name == COOKIE:
            found.append(value)
    if len(found) != 1 or not _ID.fullmatch(found[0]):
        return None
    return urlsafe_b64decode(found[0] + "=")


def make_cookie(id_: bytes) -> str:
    """Return the value of ``Set-Cookie`` for an id."""
    return f"{COOKIE}={encode(id_)}; {_ATTRIBUTES}"


def drop_cookie() -> str:
    """Return the value of ``Set-Cookie`` that removes the cookie."""
    return f"{COOKIE}=; Max-Age=0; {_ATTRIBUTES}"


def digest_of(purpose: str, *parts: bytes) -> bytes:
    """Return the key under which a row is stored: the SHA-256 of a purpose and some parts.

    Args:
        purpose: rows of one purpose are not found by another.
        parts: the id in the cookie first.
    """
    return sha256(b"\0".join((f"authz-server {purpose}".encode(), *parts))).digest()


def csrf_token(id_: bytes) -> str:
    """Return the token that forms send back; it is of no use without the cookie."""
    return encode(hmac.digest(id_, b"authz-server csrf", "sha256"))


def is_csrf_token(id_: bytes, token: str) -> bool:
    """Return whether a token is that of an id."""
    return hmac.compare_digest(csrf_token(id_).encode(), token.encode(errors="replace"))


def encode(data: bytes) -> str:
    """Return base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()
