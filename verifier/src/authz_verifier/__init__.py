"""Checks OAuth 2.0 access tokens in an API."""

from authz_verifier.context import current_token
from authz_verifier.errors import ConfigurationError, Refusal
from authz_verifier.polling import EventPoller
from authz_verifier.requests import Request
from authz_verifier.responses import Response
from authz_verifier.tokens import Token
from authz_verifier.verifier import AsyncVerifier, Verifier

__version__ = "0.1.0"
__all__ = [
    "AsyncVerifier",
    "ConfigurationError",
    "EventPoller",
    "Refusal",
    "Request",
    "Response",
    "Token",
    "Verifier",
    "current_token",
]
