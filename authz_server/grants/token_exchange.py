"""The token exchange grant (RFC 8693): a token for another party, or on its behalf.

The new token never permits more than the subject token: its scopes, its authorization details and
its lifetime are those of the subject token or less. Who may exchange which tokens is the property
``token_exchange`` of the client.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from msgspec import structs
from msgspec.json import encode

from authz_server.clients.cache import ClientCache, ClientEntry
from authz_server.clients.token_exchange import TokenExchangePolicy
from authz_server.errors import OAuthError
from authz_server.grants.base import TokenGrant
from authz_server.scopes.catalogue import ScopeCatalogue
from authz_server.tokens.authorization import (
    Authorization,
    ExchangedTokens,
    PresentedToken,
    add_details,
)
from authz_server.tokens.authorization_details import Detail, DetailRules, parse_details
from authz_server.tokens.binding import is_proven
from authz_server.tokens.claims import Origin
from authz_server.tokens.models import audience_subject
from authz_server.tokens.presented import (
    ACCESS_TOKEN,
    JWT,
    MAXIMUM_ACTORS,
    TOKEN_TYPES,
    PresentedTokens,
    VerifiedToken,
    refusal,
)

#: The tokens that a token may have been exchanged from, one after another.
MAXIMUM_ORIGINS = 8
_NOTHING = TokenExchangePolicy()
_PARTY_MEMBERS = frozenset({"sub", "iss"})


class TokenExchangeGrant(TokenGrant):
    """Exchanges a subject token, with or without an actor token, for an access token.

    Attributes:
        tokens: verifies the presented tokens.
        directory: resource servers.
        catalogue: scopes.
        details: finds the authorization details of the new audience.
        issuer: the ``iss`` of this server.
    """

    GRANT_TYPE: ClassVar[str] = "urn:ietf:params:oauth:grant-type:token-exchange"
    ACCEPTS_AUDIENCES: ClassVar[bool] = True

    tokens: ClassVar[PresentedTokens]
    directory: ClassVar[ClientCache]
    catalogue: ClassVar[ScopeCatalogue]
    details: ClassVar[DetailRules]
    issuer: ClassVar[str]

    async def authorize(self) -> Authorization:
        """Return the authorization that remains of the subject token for this client."""
        try:
            return await self._authorize(self.request.client)
        except OAuthError as error:
            error.client_id = self.request.client.id
            raise

    async def _authorize(self, client: ClientEntry) -> Authorization:
        form = self.request.form
        requested = form.get("requested_token_type", ACCESS_TOKEN)
        if requested not in TOKEN_TYPES:
            raise OAuthError("exchange_malformed", "requested_token_type")
        policy = client.properties.token_exchange or _NOTHING
        resources = self._find_resources(policy)
        subject = await self._read("subject_token", form)
        actor = await self._read_actor(form)
        self._require_permitted(client, policy, subject, actor)
        self._require_proven(subject, actor)
        decided = self._decide(client, policy, subject, resources)
        if requested == JWT and decided.token_format != "jwt":  # noqa: S105 - a format's name
            raise OAuthError("exchange_malformed", "requested_token_type")
        return self._complete(decided, client, policy, subject, actor, requested)

    async def _read(self, name: str, form: Mapping[str, str]) -> VerifiedToken:
        token, token_type = form.get(name), form.get(f"{name}_type")
        if token is None or token_type not in TOKEN_TYPES:
            raise OAuthError("exchange_malformed", f"{name} or {name}_type")
        try:
            return await self.tokens.read(
                token, token_type, accepts_issuers=name == "subject_token"
            )
        except OAuthError as error:
            # Behind the name and a colon, logs and records have no text: it could be the token.
            error.detail = f"{error.detail} ({name})"
            raise

    async def _read_actor(self, form: Mapping[str, str]) -> VerifiedToken | None:
        if "actor_token" in form:
            return await self._read("actor_token", form)
        if "actor_token_type" in form:
            # RFC 8693, 2.1
            raise OAuthError("exchange_malformed", "actor_token_type without actor_token")
        return None

    def _require_permitted(
        self,
        client: ClientEntry,
        policy: TokenExchangePolicy,
        subject: VerifiedToken,
        actor: VerifiedToken | None,
    ) -> None:
        if not policy.permits_subject(subject.subject, subject.issuer_name):
            raise refusal(f"{subject.subject} is not permitted as subject_token")
        if actor is not None:
            if actor.subject != client.id and actor.subject not in policy.actors:
                raise refusal(f"{actor.subject} is not permitted as actor_token")
            if actor.actor is not None:
                raise refusal("actor_token has an actor of its own")
        elif policy.impersonation and subject.issuer_name and self._is_own(subject.actor):
            # It would be the present actor of a token of this server (RFC 8693, 4.1).
            raise refusal("the actor of subject_token is a party of this server")
        if subject.may_act is not None:
            acting = client.id if actor is None else actor.subject
            if not _is_party(subject.may_act, acting, self.issuer):
                raise refusal(f"may_act of subject_token does not name {acting}")

    def _is_own(self, actor: Mapping[str, Any] | None) -> bool:
        """Return whether the ``act`` of another issuer names a party of this server."""
        return actor is not None and actor["iss"] == self.issuer

    def _require_proven(self, *tokens: VerifiedToken | None) -> None:
        """Require that the request proves the keys of bound tokens; the new token has them too."""
        for token in tokens:
            bound = token.confirmation if token is not None else None
            if bound is not None and not is_proven(bound, self.request.confirmation):
                raise refusal("the request does not prove the key of a bound token")

    def _find_resources(self, policy: TokenExchangePolicy) -> tuple[str, ...]:
        """Return the identifiers of the resource servers that the request names.

        An ``audience`` is the id or the identifier of a resource server.

        Raises:
            OAuthError: ``resource_invalid``.
        """
        form, request = self.request.form, self.request
        first = (form["audience"],) if "audience" in form else ()
        named = dict.fromkeys(request.resources)
        for audience in (*first, *filter(None, request.further_audiences)):
            owner = self.directory.find(audience) or self.directory.find_resource_server(audience)
            if owner is None or owner.resource_server is None:
                raise OAuthError("resource_invalid", audience)
            named[owner.resource_server.identifier] = None
        self._require_audience(policy, named)
        return tuple(named)

    def _require_audience(self, policy: TokenExchangePolicy, identifiers: Iterable[str]) -> None:
        for identifier in identifiers:
            owner = self.directory.find_resource_server(identifier)
            if owner is None or owner.id not in policy.audiences:
                raise OAuthError("resource_invalid", identifier)

    def _decide(
        self,
        client: ClientEntry,
        policy: TokenExchangePolicy,
        subject: VerifiedToken,
        resources: tuple[str, ...],
    ) -> Authorization:
        form = self.request.form
        scope = form.get("scope", "").strip(" ") or None
        if subject.scopes is not None:
            scope = self._limit_scopes(client, policy, subject.scopes, scope, resources)
        asked = form.get("authorization_details")
        if subject.issuer_name and asked is not None:
            # Of another issuer's details nothing is known: the client's own grants limit these.
            return self.rules.decide_details(client, self.GRANT_TYPE, scope, resources, asked)
        # A token that was issued by an earlier version has its locations as they were asked for.
        registered = self.details.as_registered
        parsed = () if asked is None else registered(parse_details(asked, client.id))
        decided = self.rules.decide_with(client, self.GRANT_TYPE, scope, resources, subject.details)
        kept = registered(self.details.of_audience(subject.details, decided.audience))
        chosen = _choose(kept, parsed)
        if chosen:
            self._require_limits(decided, kept, chosen)
        return add_details(decided, self.details.keep(client, chosen or kept))

    def _require_limits(
        self, decided: Authorization, kept: tuple[Detail, ...], chosen: tuple[Detail, ...]
    ) -> None:
        """Require that the chosen details leave no scope without a limit that it had."""
        found = map(self.catalogue.find, decided.scopes)
        entries = [each for each in found if each is not None]
        lost = self.details.find_limits(entries, kept) - self.details.find_limits(entries, chosen)
        if lost:
            raise OAuthError("authorization_details_not_granted", f"{min(lost)[1]} has no limit")

    def _limit_scopes(
        self,
        client: ClientEntry,
        policy: TokenExchangePolicy,
        limit: tuple[str, ...],
        scope: str | None,
        resources: tuple[str, ...],
    ) -> str:
        """Return the scopes to ask for: those requested, or all that remain."""
        if scope is not None:
            entries = [self.catalogue.find(each) for each in scope.split(" ") if each]
            refused = [each for each in entries if each is None or each.name not in limit]
            if refused:
                raise OAuthError("scope_not_granted", "a scope that the subject token lacks")
            return scope
        owners = [self.directory.find_resource_server(each) for each in resources]
        servers = {each.id for each in owners if each is not None} or set(policy.audiences)
        entries = [self.catalogue.find(each) for each in limit if each in client.allowed_scopes]
        remaining = [each.name for each in entries if each and each.resource_server_id in servers]
        if not remaining:
            raise OAuthError("scope_not_granted", "no scope of the subject token remains")
        return " ".join(remaining)

    def _complete(  # noqa: PLR0913, PLR0917 - what the new token follows from
        self,
        decided: Authorization,
        client: ClientEntry,
        policy: TokenExchangePolicy,
        subject: VerifiedToken,
        actor: VerifiedToken | None,
        requested: str,
    ) -> Authorization:
        """Return the decision with the subject, the actor and the end of the presented tokens."""
        self._require_audience(policy, decided.audience)
        ends = [subject.expires_at, *([actor.expires_at] if actor else []), decided.expires_at]
        claims: dict[str, Any] = dict(decided.claims or {})
        # The client's own claim is about tokens whose subject it is.
        claims.pop("may_act", None)
        if subject.may_act is not None:
            claims["may_act"] = subject.may_act
        if subject.subject_id is not None:
            claims["sub_id"] = subject.subject_id
        # A token for messages that one partner has signed becomes none for those of another.
        claims.update(subject.message_claims)
        if (act := _make_act(client, policy, subject, actor)) is not None:
            claims["act"] = act
        if origins := _join_origins(subject, actor, decided.audience):
            claims["exchanged_from"] = origins
        return replace(
            decided,
            subject=subject.subject,
            expires_at=min(filter(None, ends)),
            claims=claims,
            answer={**(decided.answer or {}), "issued_token_type": requested},
            exchanged=ExchangedTokens(_recorded(subject), _recorded(actor) if actor else None),
        )


def _is_party(may_act: Mapping[str, Any], subject: str, issuer: str) -> bool:
    """Return whether ``may_act`` names this party of this server, and nothing that is unknown."""
    return (
        _PARTY_MEMBERS.issuperset(may_act)
        and may_act.get("sub") == subject
        and may_act.get("iss", issuer) == issuer
    )


def _make_act(
    client: ClientEntry,
    policy: TokenExchangePolicy,
    subject: VerifiedToken,
    actor: VerifiedToken | None,
) -> Mapping[str, Any] | None:
    """Return the ``act`` of the new token, with earlier actors inside (RFC 8693, 4.1)."""
    if actor is None and policy.impersonation:
        return subject.actor
    act: dict[str, Any] = {"sub": client.id if actor is None else actor.subject}
    if subject.actor is not None:
        act["act"] = subject.actor
    if _depth_of(act) > MAXIMUM_ACTORS:
        raise refusal(f"subject_token has {MAXIMUM_ACTORS} actors already")
    return act


def _depth_of(act: Mapping[str, Any]) -> int:
    depth = 1
    while "act" in act:
        act = act["act"]
        depth += 1
    return depth


def _join_origins(
    subject: VerifiedToken, actor: VerifiedToken | None, audience: Collection[str]
) -> tuple[Origin, ...]:
    acting = actor.origins if actor is not None else ()
    origins = (*subject.origins, *(structs.replace(each, acts=True) for each in acting))
    if len(origins) > MAXIMUM_ORIGINS:
        raise refusal(f"subject_token was exchanged {MAXIMUM_ORIGINS} times already")
    # A cut-off of an audience that the new token has is found by its own.
    held = set(map(audience_subject, audience))
    return tuple(
        structs.replace(
            each, aud=tuple(name for name in map(audience_subject, each.aud) if name not in held)
        )
        for each in origins
    )


def _choose(kept: Iterable[Detail], asked: Iterable[Detail]) -> tuple[Detail, ...]:
    """Return those of ``kept`` that are asked for.

    Raises:
        OAuthError: ``authorization_details_not_granted``: another one is asked for.
    """
    # By their JSON: Python takes ``true`` for ``1``, and ``1.0`` too.
    found = {encode(each, order="sorted"): each for each in kept}
    try:
        return tuple(found[encode(each, order="sorted")] for each in asked)
    except KeyError:
        raise OAuthError("authorization_details_not_granted", "not of the subject token") from None


def _recorded(token: VerifiedToken) -> PresentedToken:
    return PresentedToken(token.subject, token.issuer, token.client_id, token.jti)
