"""Errors of the package: refusals of requests, and wrong configuration."""

from collections.abc import Sequence

UNAUTHORIZED = 401
BAD_REQUEST = 400
UNAVAILABLE = 503


class ConfigurationError(ValueError):
    """A setting is wrong; the message names the setting and a remedy."""


class Refusal(Exception):  # noqa: N818 - a refused request is an outcome, not a fault
    """A request that must not be served.

    Args:
        status: the HTTP status: 400, 401, 403 or 503.
        error: the code of RFC 6750, 3.1 or RFC 9449, 7.1; empty for a request without a token.
        reason: the cause, for the log. It is never sent to the caller.
        scopes: the scopes that the request needs.
        retry_after_seconds: for a 503, when the caller may try again.
    """

    def __init__(
        self,
        status: int,
        error: str,
        reason: str,
        *,
        scopes: Sequence[str] = (),
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.error = error
        self.reason = reason
        self.scopes = tuple(scopes)
        self.retry_after_seconds = retry_after_seconds

    @property
    def description(self) -> str:
        """A sentence for the caller; it reveals nothing of the token."""
        return _DESCRIPTIONS.get(self.error, "An access token is required.")


def invalid_token(reason: str) -> Refusal:
    """Return the refusal of an invalid token (RFC 6750, 3.1)."""
    return Refusal(UNAUTHORIZED, "invalid_token", reason)


def invalid_proof(reason: str) -> Refusal:
    """Return the refusal of an invalid DPoP proof (RFC 9449, 7.1)."""
    return Refusal(UNAUTHORIZED, "invalid_dpop_proof", reason)


def unavailable(reason: str, retry_after_seconds: int = 5) -> Refusal:
    """Return the refusal of a request whose token cannot be checked now."""
    return Refusal(
        UNAVAILABLE, "temporarily_unavailable", reason, retry_after_seconds=retry_after_seconds
    )


_DESCRIPTIONS = {
    "invalid_request": "The request has no usable access token.",
    "invalid_token": "The access token is malformed, expired, revoked or not valid here.",
    "invalid_dpop_proof": "The DPoP proof is missing or not valid for this request.",
    "insufficient_scope": "The access token lacks a scope that the request needs.",
    "temporarily_unavailable": "Access tokens cannot be checked at present.",
}
