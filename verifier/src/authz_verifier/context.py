"""The token of the present request."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from authz_verifier.tokens import Token

_present_token: ContextVar[Token] = ContextVar("authz_verifier_token")


def current_token() -> Token:
    """Return the token of the request that is being served.

    Raises:
        RuntimeError: the code does not run within a request that `requires` guards.
    """
    try:
        return _present_token.get()
    except LookupError:
        raise RuntimeError("no guarded request is being served") from None


@contextmanager
def serving(token: Token) -> Iterator[None]:
    """Make a token the present one while its request is served, and not for the next request."""
    before = _present_token.set(token)
    try:
        yield
    finally:
        _present_token.reset(before)
