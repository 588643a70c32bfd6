"""Every hook, one sentence each, and the values that plugins receive.

Three kinds, one failure rule each: *register* (at start: a failure stops the start), *decide* (in
the request: a failure refuses it), *notify* (after the fact: a failure is logged and the other
plugins are still notified).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pluggy

from authz_server.audit.events import Event

PROJECT = "authz_server"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

#: Claims that the server writes itself (RFC 7519, 4.1; RFC 7662, 2.2; RFC 7800, 3.1; RFC 9068,
#: 2.2), or that would change what a token means to those who check it (RFC 8693, 4; RFC 9396, 9).
RESERVED_CLAIMS = frozenset(
    {
        "iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope", "cnf",
        "active", "token_type", "username", "token_introspection",
        "act", "may_act", "authorization_details",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TokenDecision:
    """A token about to be issued: all of the server's own rules have passed.

    Attributes:
        client_id: the authenticated client.
        grant_type: for example ``client_credentials``.
        scopes: canonical names, in the order in which the token will carry them.
        audience: the identifiers of the resource servers.
        lifetime_seconds: ``exp`` minus ``iat``.
    """

    client_id: str
    grant_type: str
    scopes: tuple[str, ...]
    audience: tuple[str, ...]
    lifetime_seconds: int


class RefusalError(Exception):
    """Raised by a plugin that refuses a token; its text is for the operator's log alone."""


class Hooks:
    """The specification that every implementation is checked against at start."""

    @hookspec
    def start(self, settings: Mapping[str, Any]) -> None:
        """Register: take the plugin's own table of settings, and refuse it by raising."""

    @hookspec
    def register_grants(self) -> Iterable[type[Any]]:  # type: ignore[empty-body]
        """Register: return grants, subclasses of TokenGrant."""

    @hookspec
    def register_client_authentication_methods(self) -> Iterable[Any]:  # type: ignore[empty-body]
        """Register: return methods, instances of ClientAuthenticationMethod."""

    @hookspec
    def register_key_backends(self) -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
        """Register: return functions that open key backends, by the scheme of their URIs."""

    @hookspec
    def register_commands(self) -> Iterable[Any]:  # type: ignore[empty-body]
        """Register: return commands of the command line, instances of click.Command."""

    @hookspec
    def decide_token(self, request: TokenDecision) -> None:
        """Decide: refuse a token that is about to be issued by raising RefusalError."""

    @hookspec
    def token_claims(self, request: TokenDecision) -> Mapping[str, Any]:  # type: ignore[empty-body]
        """Decide: return further claims for a JWT access token, under names not reserved."""

    @hookspec
    def introspection_claims(self, claims: Mapping[str, Any]) -> Mapping[str, Any]:  # type: ignore[empty-body]
        """Decide: return further members for an active answer, under names not reserved."""

    @hookspec
    def event_happened(self, event: Event) -> None:
        """Notify: an event was recorded."""
