"""The token of the present request."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from authz_verifier.tokens import Token

_present_token: ContextVar[Token] = ContextVar("authz_verifier_token")

#: Attributes of a guarded view, and of the view within it.
_SCOPES = "authz_verifier_scopes"
_GUARDED = "authz_verifier_guarded"


def current_token() -> Token:
    """Return the token of the request that is being served.

    Raises:
        RuntimeError: the code does not run within a request that `requires` guards.
    """
    try:
        return _present_token.get()
    except LookupError:
        raise RuntimeError("no guarded request is being served") from None


def mark_guarded(guarded: object, view: object, scopes: tuple[str, ...]) -> None:
    """Mark a guarded view, and the view that it guards."""
    setattr(guarded, _SCOPES, scopes)
    # Methods of classes and some callables take no attribute.
    with suppress(AttributeError):
        setattr(view, _GUARDED, True)


def scopes_of(view: object) -> tuple[str, ...] | None:
    """Return the scopes that a view needs; None if it is not guarded.

    Raises:
        RuntimeError: `requires` guards it, but above the decorator of its route.
    """
    scopes: tuple[str, ...] | None = getattr(view, _SCOPES, None)
    if scopes is None and getattr(view, _GUARDED, False):
        raise RuntimeError("put @requires below the decorator of the route: it has no effect")
    return scopes


@contextmanager
def serving(token: Token) -> Iterator[None]:
    """Make a token the present one while its request is served, and not for the next request."""
    before = _present_token.set(token)
    try:
        yield
    finally:
        _present_token.reset(before)
