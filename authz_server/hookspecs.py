"""The hooks of plugins and the values that they receive.

There are three kinds, each with its failure rule. *Register* runs at start, and a failure stops
the start. *Decide* runs in the request, and a failure refuses it. *Notify* runs after the fact, and
a failure is logged while the other plugins are still notified.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any

import msgspec
import pluggy

from authz_server.audit.events import (
    ClientChanged,
    CutOffRecorded,
    Event,
    KeyChanged,
    StopSet,
    TokenRevoked,
)
from authz_server.waiting import Wait

PROJECT = "authz_server"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

#: The largest claims of one plugin, as JSON.
MAXIMUM_CLAIM_BYTES = 4_096

#: Claims that the server writes itself (RFC 7519, 4.1; RFC 7662, 2.2; RFC 7800, 3.1; RFC 9068,
#: 2.2), or that would change what a token means to those who check it (RFC 8693, 4; RFC 9396, 9).
#: Settings that make the server write one are no condition: a name has one meaning.
RESERVED_CLAIMS = frozenset(
    {
        "iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope", "cnf",
        "active", "token_type", "username", "token_introspection",
        "act", "may_act", "authorization_details", "exchanged_from", "status",
        "sender_id", "message_cnf", "max_age", "client_name", "organisation", "sub_id",
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
        source_address: the IP address of the client.
        authentication_method: the method by which it authenticated.
    """

    client_id: str
    grant_type: str
    scopes: tuple[str, ...]
    audience: tuple[str, ...]
    lifetime_seconds: int
    confirmation: Mapping[str, str] | None = None
    subject: str = ""
    claims: Mapping[str, Any] | None = None
    source_address: str = ""
    authentication_method: str = ""


@dataclass(frozen=True, slots=True)
class Narrowing:
    """A plugin permits a token with less than the server's own rules do.

    Attributes:
        scopes: the scopes that are left, some of the decision's; None: all of them.
        lifetime_seconds: the lifetime that is left, at least 1; None: the decision's.
    """

    scopes: tuple[str, ...] | None = None
    lifetime_seconds: int | None = None


class InvalidResultError(Exception):
    """A hook returned what it may not return."""


class RefusalError(Exception):
    """A plugin refuses a token; the text goes to the audit record and to the server's log only."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """Tokens have ended before they expire.

    Attributes:
        kind: ``token``, ``client``, ``key``, ``scope``, ``resource-server``, ``programme`` or
            ``all``: what their common subject is.
        subject: the ``jti``, the id or the name; empty for ``all``.
        client_id: the client of a single token; else empty.
        instant_microseconds: only tokens issued up to this time have ended, in microseconds since
            1970; None: all of them, as long as the stop is in force.
    """

    kind: str
    subject: str
    client_id: str = ""
    instant_microseconds: int | None = None


@dataclass(frozen=True, slots=True)
class AnsweredRequest:
    """A request that a protocol endpoint has answered.

    Attributes:
        endpoint: the endpoint's name in metrics, for example ``token``.
        path: the path of the request.
        status: the HTTP status of the answer.
        outcome: ``ok``, another outcome of the endpoint, or the error code.
        began_at: the time of the last byte of the request, in seconds since 1970.
        seconds: the time until the answer.
        request_id: the id in records and in ``X-Request-Id``.
        client_id: the authenticated client; empty if there is none.
        source_address: the IP address of the client.
        traceparent: that header of the request (W3C Trace Context); empty if absent.
        tracestate: likewise.
        waits: its waits, for example for the database or for a signature of a remote key.
    """

    endpoint: str
    path: str
    status: int
    outcome: str
    began_at: float
    seconds: float
    request_id: str
    client_id: str
    source_address: str
    traceparent: str = ""
    tracestate: str = ""
    waits: tuple[Wait, ...] = ()


#: The changes of clients and resource servers that end their tokens.
_ENDING = {
    "client.disabled": "client",
    "client.deleted": "client",
    "resource_server.disabled": "resource-server",
    "resource_server.deleted": "resource-server",
}


def find_revocation(event: Event) -> Revocation | None:
    """Return the revocation that an event reports; None: it reports none."""
    match event:
        case TokenRevoked():
            return Revocation("token", event.jti, event.client_id)
        case CutOffRecorded():
            instant = event.instant_microseconds
            return Revocation(event.kind, event.subject, instant_microseconds=instant)
        case StopSet():
            return Revocation(event.kind, event.subject)
        case KeyChanged(action="key.revoked"):
            return Revocation("key", event.kid)
        case ClientChanged() if event.action in _ENDING:
            return Revocation(_ENDING[event.action], event.client_id)
    return None


def narrow_decision(request: TokenDecision, narrowing: object) -> TokenDecision:
    """Return the decision with less; raise InvalidResultError for anything but less."""
    if not isinstance(narrowing, Narrowing):
        raise InvalidResultError(f"it returned {type(narrowing).__name__} instead of a Narrowing")
    # A plugin may hold anything in it.
    scopes: Any = narrowing.scopes
    seconds: Any = narrowing.lifetime_seconds
    if scopes is not None:
        if not isinstance(scopes, tuple) or not scopes or not set(scopes) <= set(request.scopes):
            raise InvalidResultError("it returned other scopes than those of the token")
        kept = tuple(each for each in request.scopes if each in scopes)
        request = replace(request, scopes=kept)
    if seconds is not None:
        if type(seconds) is not int or not 0 < seconds <= request.lifetime_seconds:
            raise InvalidResultError("it returned a longer lifetime, or none")
        request = replace(request, lifetime_seconds=seconds)
    return request


def require_claims(added: object, collected: Mapping[str, Any]) -> None:
    """Raise InvalidResultError for claims that a plugin may not add to those of other plugins."""
    if not isinstance(added, Mapping):
        raise InvalidResultError(f"a plugin returned {type(added).__name__} instead of claims")
    for claim in added:
        if (
            not isinstance(claim, str)
            or not claim
            or claim in RESERVED_CLAIMS
            or claim in collected
        ):
            raise InvalidResultError(f"the claim {claim!r:.100} is reserved, taken or not a name")
    try:
        size = len(msgspec.json.encode(dict(added)))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidResultError("a claim cannot be serialized as JSON") from error
    if size > MAXIMUM_CLAIM_BYTES:
        raise InvalidResultError(f"the claims exceed {MAXIMUM_CLAIM_BYTES} bytes")


def copy_values(value: Any) -> Any:  # noqa: ANN401 - any value
    """Return a copy of tables and lists, at any depth, that a plugin may change without effect."""
    if isinstance(value, TokenDecision):
        if value.confirmation is None and value.claims is None:
            return value
        confirmation, claims = copy_values(value.confirmation), copy_values(value.claims)
        return replace(value, confirmation=confirmation, claims=claims)
    if isinstance(value, Mapping):
        return {name: copy_values(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        copied = [copy_values(each) for each in value]
        return copied if isinstance(value, list) else tuple(copied)
    return value


def is_never_run(hook: str, implementation: pluggy.HookImpl) -> bool:
    """Return whether a call of a hook would only make a coroutine, or a generator without use."""
    function = implementation.function
    if iscoroutinefunction(function) or isasyncgenfunction(function):
        return True
    if hook.startswith("register_") or implementation.wrapper or implementation.hookwrapper:
        return False
    return isgeneratorfunction(function)


class Hooks:
    """The hook specifications, which every implementation is checked against at start."""

    @hookspec
    def start(self, settings: Mapping[str, Any], services: Any) -> None:  # noqa: ANN401 - of a layer above
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
    def decide_token(self, request: TokenDecision) -> Narrowing | None:
        """Decide: refuse a token by raising RefusalError, or permit less of it."""

    @hookspec
    def token_claims(self, request: TokenDecision) -> Mapping[str, Any]:  # type: ignore[empty-body]
        """Decide: return claims to add to a JWT access token, none of a reserved name."""

    @hookspec
    def introspection_claims(self, claims: Mapping[str, Any]) -> Mapping[str, Any]:  # type: ignore[empty-body]
        """Decide: return members to add to an active response, none of a reserved name."""

    @hookspec
    def event_happened(self, event: Event) -> None:
        """Notify: receive a recorded event."""

    @hookspec
    def revocation_happened(self, revocation: Revocation) -> None:
        """Notify: tokens were revoked or stopped on this node."""

    @hookspec
    def request_answered(self, request: AnsweredRequest) -> None:
        """Notify: a protocol endpoint has answered a request."""
