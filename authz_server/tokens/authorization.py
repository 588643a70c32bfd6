"""Authorization rules: the scopes, audience, lifetime and format of a token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from authz_server.clients.cache import ClientCache, ClientEntry
from authz_server.errors import OAuthError
from authz_server.scopes.catalogue import ScopeCatalogue, ScopeEntry
from authz_server.settings import TokenSettings
from authz_server.tokens.authorization_details import CLAIM as DETAILS
from authz_server.tokens.authorization_details import (
    Detail,
    DetailRules,
    GrantedDetails,
    parse_details,
)
from authz_server.tokens.stops import StopState

MAXIMUM_RESOURCES = 16
_REMEMBERED = 8_192
# Longer requests are not cached, so that no client can fill the cache with its spellings.
_REMEMBERED_CHARACTERS = 1_024


@dataclass(frozen=True, slots=True)
class PresentedToken:
    """A token that was presented as an authorization, for the audit record.

    Attributes:
        subject: its ``sub``.
        issuer: its ``iss``.
        client_id: the client that it was issued to; empty for a token of another issuer.
        jti: its id; empty if it has none.
    """

    subject: str
    issuer: str
    client_id: str = ""
    jti: str = ""


@dataclass(frozen=True, slots=True)
class ExchangedTokens:
    """The tokens of a token exchange (RFC 8693, 2.1); ``actor`` is None without an actor token."""

    subject: PresentedToken
    actor: PresentedToken | None = None


@dataclass(frozen=True, slots=True)
class Authorization:
    """The outcome of the authorization rules for a request.

    Attributes:
        client_id: the client, which is also the subject unless there is another (RFC 9068, 2.2).
        grant_type: for example ``client_credentials``.
        scopes: canonical names in the requested order, each once.
        scope: the ``scope`` of token and response: the canonical names, or the requested spelling.
        audience: identifiers of resource servers.
        token_format: ``jwt`` or ``reference``.
        ring: the key ring that signs; empty: the default ring.
        token_type: the ``typ`` of a JWT.
        g2p_answer: the client's response form in the G2P Connect profile.
        lifetime_seconds: ``exp`` minus ``iat``.
        subject: the ``sub``; empty: the client.
        expires_at: the latest ``exp``, in seconds since 1970; 0: the lifetime alone decides.
        claims: further claims that only the server writes, such as ``authorization_details``.
        answer: further members of the response, such as ``issued_token_type``.
        exchanged: the tokens that were presented for this one (RFC 8693).
        status_list: the resource server whose status lists hold the token; empty: it is in none.
    """

    client_id: str
    grant_type: str
    scopes: tuple[str, ...]
    scope: str
    audience: tuple[str, ...]
    token_format: str
    ring: str
    lifetime_seconds: int
    token_type: str = "at+jwt"  # noqa: S105 - a media type, not a secret
    g2p_answer: str = "document"
    subject: str = ""
    expires_at: int = 0
    claims: Mapping[str, Any] | None = None
    answer: Mapping[str, object] | None = None
    exchanged: ExchangedTokens | None = None
    status_list: str = ""


class AuthorizationRules:
    """Decides what a client is granted, from the caches of clients and scopes.

    Args:
        directory: clients and resource servers.
        catalogue: scopes.
        settings: lifetimes and configurable rules.
        details: limits authorization details.
        stops: the clients and scopes that get no token; None: there are none.
    """

    def __init__(
        self,
        directory: ClientCache,
        catalogue: ScopeCatalogue,
        settings: TokenSettings,
        details: DetailRules,
        stops: StopState | None = None,
    ) -> None:
        self._directory = directory
        self._catalogue = catalogue
        self._settings = settings
        self._details = details
        self._stops = stops or StopState()
        self._decided: dict[tuple[str, str, str, tuple[str, ...]], Authorization] = {}

    def forget(self, *_: object) -> None:
        """Drop all cached decisions, because a client, a scope or a stop has changed."""
        self._decided = {}

    def decide(
        self, client: ClientEntry, grant_type: str, scope: str | None, resources: tuple[str, ...]
    ) -> Authorization:
        """Return what the client is granted.

        Args:
            client: the authenticated client.
            grant_type: a grant type that the client may use.
            scope: the ``scope`` parameter; None if absent.
            resources: the ``resource`` parameters (RFC 8707).

        Raises:
            OAuthError: ``scope_...``, ``client_stopped`` or ``resource_invalid``.
        """
        question = (client.id, grant_type, scope or "", resources)
        # Use the same cache throughout: a change during the decision replaces it.
        memory = self._decided
        decided = memory.get(question)
        if decided is not None:
            return decided
        decided = self.decide_with(client, grant_type, scope, resources)
        # An identifier has spellings of any length, too (RFC 3986, 6.2).
        characters = len(question[2]) + sum(map(len, resources))
        if characters > _REMEMBERED_CHARACTERS or len(resources) > 1:
            return decided
        # Cache only for the current entry: the client may have changed before this cache began.
        if client is self._directory.find(client.id):
            if len(memory) >= _REMEMBERED:
                memory.clear()
            memory[question] = decided
        return decided

    def decide_details(
        self,
        client: ClientEntry,
        grant_type: str,
        scope: str | None,
        resources: tuple[str, ...],
        details: str,
    ) -> Authorization:
        """Return what the client is granted with authorization details (RFC 9396); never cached.

        Without ``scope``, the token has the client's scopes that the types of the details limit.

        Args:
            client: the authenticated client.
            grant_type: a grant type that the client may use.
            scope: the ``scope`` parameter; None if absent.
            resources: the ``resource`` parameters (RFC 8707).
            details: the ``authorization_details`` parameter.

        Raises:
            OAuthError: ``authorization_details_...``, ``scope_...`` or ``resource_invalid``.
        """
        parsed = parse_details(details, client.id)
        named = self._named_resource_servers(client, resources)
        # First of all, because it refuses an unknown type: no scope would be missing a detail.
        limited = self._details.find_scopes(client, parsed, named)
        if scope is None or not scope.strip(" "):
            scope = " ".join(limited)
            if not scope:
                raise OAuthError("scope_not_granted", "none of the details", client_id=client.id)
        decided = self.decide_with(client, grant_type, scope, resources, parsed)
        granted = self._details.grant(client, parsed, decided.audience, decided.lifetime_seconds)
        return add_details(decided, granted)

    def decide_with(
        self,
        client: ClientEntry,
        grant_type: str,
        scope: str | None,
        resources: tuple[str, ...],
        details: Sequence[Detail] = (),
    ) -> Authorization:
        """Return what the client is granted in a token that has such details; never cached.

        Raises:
            OAuthError: ``authorization_details_missing``, ``scope_...`` or ``resource_invalid``.
        """
        named = self._named_resource_servers(client, resources)
        asked, scopes = self._asked_scopes(client, scope, named)
        if self._stops.any:
            self._stops.require_none(client.id, scopes)
        self._details.require_details(client, scopes, details)
        owners = self._owners(client, scopes, named)
        servers = [owner.resource_server for owner in owners if owner.resource_server]
        kinds = {(each.token_format, each.signing_ring or "", each.token_type) for each in servers}
        if len(kinds) != 1:
            raise OAuthError(
                "scope_several_resource_servers", "their tokens differ", client_id=client.id
            )
        ((token_format, ring, token_type),) = kinds
        requested = self._settings.scope_spelling == "requested"
        return Authorization(
            client_id=client.id,
            grant_type=grant_type,
            scopes=tuple(entry.name for entry in scopes),
            scope=" ".join(asked if requested else [entry.name for entry in scopes]),
            audience=tuple(each.identifier for each in servers),
            token_format=token_format,
            ring=ring,
            token_type=token_type,
            g2p_answer=client.g2p_answer,
            lifetime_seconds=self._lifetime(client, scopes),
            claims=_own_claims(client),
            status_list=_status_list_of(owners, token_format),
        )

    def _asked_scopes(
        self, client: ClientEntry, scope: str | None, named: tuple[str, ...]
    ) -> tuple[list[str], list[ScopeEntry]]:
        if scope is None:
            return self._default_scopes(client, named)
        if len(scope) > self._settings.maximum_scope_bytes:
            raise OAuthError("scope_too_long", client_id=client.id)
        found: dict[str, tuple[str, ScopeEntry]] = {}
        refused: list[str] = []
        # RFC 6749, 3.3: only 0x20 separates; doubled spaces yield empty parts.
        for spelling in scope.split(" "):
            if not spelling:
                continue
            entry = self._catalogue.find(spelling)
            if entry is None or entry.name not in client.allowed_scopes:
                refused.append(spelling)
            else:
                found.setdefault(entry.name, (spelling, entry))
        if refused:
            raise OAuthError("scope_not_granted", " ".join(refused), client_id=client.id)
        if not found:
            return self._default_scopes(client, named)
        return [asked for asked, _ in found.values()], [entry for _, entry in found.values()]

    def _default_scopes(
        self, client: ClientEntry, named: tuple[str, ...]
    ) -> tuple[list[str], list[ScopeEntry]]:
        entries = [self._catalogue.find(name) for name in client.default_scopes]
        granted = [
            entry
            for entry in entries
            if entry
            and entry.name in client.allowed_scopes
            and (not named or entry.resource_server_id in named)
        ]
        if not granted:
            raise OAuthError("scope_missing", client_id=client.id)
        return [entry.name for entry in granted], granted

    def _named_resource_servers(
        self, client: ClientEntry, resources: tuple[str, ...]
    ) -> tuple[str, ...]:
        """Return the ids of the resource servers that the request names (RFC 8707, 2)."""
        if len(resources) > MAXIMUM_RESOURCES:
            raise OAuthError("resource_invalid", "too many", client_id=client.id)
        named: dict[str, None] = {}
        for resource in resources:
            owner = self._directory.find_resource_server(resource)
            if owner is None or not _may_reach(client, owner.id):
                raise OAuthError("resource_invalid", resource, client_id=client.id)
            named[owner.id] = None
        if len(named) > 1 and self._settings.several_resource_servers == "refuse":
            raise OAuthError("resource_invalid", "several resources", client_id=client.id)
        return tuple(named)

    def _owners(
        self, client: ClientEntry, scopes: Sequence[ScopeEntry], named: tuple[str, ...]
    ) -> list[ClientEntry]:
        """Return the resource servers that own the scopes, which form the audience."""
        owners: dict[str, ClientEntry] = {}
        for scope in scopes:
            owner_id = scope.resource_server_id
            owner = self._directory.find(owner_id) if owner_id else None
            if owner is None or owner.resource_server is None or not owner.enabled:
                raise OAuthError(
                    "scope_not_granted",
                    scope.name,
                    cause="scope_without_resource_server",
                    client_id=client.id,
                )
            if not _may_reach(client, owner.id) or (named and owner.id not in named):
                raise OAuthError(
                    "scope_not_granted",
                    f"{scope.name} is of another resource server",
                    client_id=client.id,
                )
            owners[owner.id] = owner
        if len(owners) > 1 and self._settings.several_resource_servers == "refuse":
            raise OAuthError("scope_several_resource_servers", client_id=client.id)
        return list(owners.values())

    def _lifetime(self, client: ClientEntry, scopes: Sequence[ScopeEntry]) -> int:
        limits = [client.token_lifetime_seconds or self._settings.default_lifetime_seconds]
        limits.append(self._settings.maximum_lifetime_seconds)
        limits.extend(scope.lifetime_cap_seconds for scope in scopes if scope.lifetime_cap_seconds)
        return min(limits)


def _may_reach(client: ClientEntry, resource_server_id: str) -> bool:
    allowed = client.allowed_resource_servers
    return not allowed or resource_server_id in allowed


def _own_claims(client: ClientEntry) -> Mapping[str, Any] | None:
    """Return the claims that every token of the client carries; None: there are none."""
    may_act = client.properties.may_act
    return None if may_act is None else {"may_act": msgspec.to_builtins(may_act)}


def _status_list_of(owners: Sequence[ClientEntry], token_format: str) -> str:
    """Return the first resource server that wants status lists; empty: none, or not for JWTs."""
    wanting = (each.id for each in owners if each.properties.status_list)
    return next(wanting, "") if token_format == "jwt" else ""  # noqa: S105 - a format's name


def add_details(authorization: Authorization, granted: GrantedDetails) -> Authorization:
    """Return the authorization with details in its token and in its response (RFC 9396, 7)."""
    if not granted.details:
        return authorization
    members = {DETAILS: granted.details}
    return replace(
        authorization,
        claims={**(authorization.claims or {}), **members},
        answer={**(authorization.answer or {}), **members},
        expires_at=min(filter(None, (authorization.expires_at, granted.expires_at)), default=0),
    )
