"""The hooks of plugins and the values that they receive.

There are three kinds, each with its failure rule. *Register* runs at start, and a failure stops
the start. *Decide* runs in the request, and a failure refuses it. *Notify* runs after the fact, and
a failure is logged while the other plugins are still notified.
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
        "act", "may_act", "authorization_details", "exchanged_from", "status",
        "sender_id", "message_cnf", "max_age",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TokenDecision:
    """A token that is about to be issued; the server's own rules permit it.

    Attributes:
        client_id: the authenticated client.
        grant_type: for example ``client_credentials``.
        scopes: canonical names, in the order in which the token will carry them.
        audience: the identifiers of the resource servers.
        lifetime_seconds: ``exp`` minus ``iat``.
        confirmation: the ``cnf`` of the token, for example its ``jkt``; None: a bearer token.
        subject: the ``sub`` of the token: the client, unless the grant has another subject.
        claims: further claims that only the server writes, such as ``act``; None: there are none.
    """

    client_id: str
    grant_type: str
    scopes: tuple[str, ...]
    audience: tuple[str, ...]
    lifetime_seconds: int
    confirmation: Mapping[str, str] | None = None
    subject: str = ""
    claims: Mapping[str, Any] | None = None


class RefusalError(Exception):
    """A plugin refuses a token; the text goes to the server's log only."""


class Hooks:
    """The hook specifications, which every implementation is checked against at start."""

    @hookspec
    def start(self, settings: Mapping[str, Any]) -> None:
        """Register: receive the plugin's table of settings, and raise to refuse it."""

    @hookspec
    def register_grants(self) -> Iterable[type[Any]]:  # type: ignore[empty-body]
        """Register: return grants, subclasses of TokenGrant."""

    @hookspec
    def register_authorization_details_types(self) -> Iterable[Any]:  # type: ignore[empty-body]
        """Register: return types, instances of AuthorizationDetailsType."""

    @hookspec
    def register_client_authentication_methods(self) -> Iterable[Any]:  # type: ignore[empty-body]
        """Register: return methods, instances of ClientAuthenticationMethod."""

    @hookspec
    def register_key_backends(self) -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
        """Register: return functions that open key backends, by the scheme of their URIs."""

    @hookspec
    def register_introspection_sources(self) -> Iterable[Any]:  # type: ignore[empty-body]
        """Register: return sources, instances of IntrospectionSource."""

    @hookspec
    def register_commands(self) -> Iterable[Any]:  # type: ignore[empty-body]
        """Register: return commands, instances of click.Command."""

    @hookspec
    def decide_token(self, request: TokenDecision) -> None:
        """Decide: refuse a token that is about to be issued by raising RefusalError."""

    @hookspec
    def token_claims(self, request: TokenDecision) -> Mapping[str, Any]:  # type: ignore[empty-body]
        """Decide: return claims to add to a JWT access token, none of a reserved name."""

    @hookspec
    def introspection_claims(self, claims: Mapping[str, Any]) -> Mapping[str, Any]:  # type: ignore[empty-body]
        """Decide: return members to add to an active response, none of a reserved name."""

    @hookspec
    def event_happened(self, event: Event) -> None:
        """Notify: receive a recorded event."""
