"""The token of the present request."""

from contextvars import ContextVar

from authz_verifier.tokens import Token

present_token: ContextVar[Token] = ContextVar("authz_verifier_token")


def current_token() -> Token:
    """Return the token of the request that is being served.

    Raises:
        RuntimeError: the code does not run within a request that `requires` guards.
    """
    try:
        return present_token.get()
    except LookupError:
        raise RuntimeError("no guarded request is being served") from None
