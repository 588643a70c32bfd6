"""Token introspection: which members of a token a caller may see (RFC 7662)."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from authz_server.clients.cache import ClientEntry
from authz_server.database.orm import Database
from authz_server.errors import OAuthError
from authz_server.hookspecs import RESERVED_CLAIMS
from authz_server.plugin_manager import PluginManager
from authz_server.tokens.authorization_details import DetailRules
from authz_server.tokens.binding import token_type_of
from authz_server.tokens.claims import AccessTokenClaims
from authz_server.tokens.introspection_source import IntrospectionSources
from authz_server.tokens.revocations import RevocationState
from authz_server.tokens.standing import TokenStanding
from authz_server.tokens.tainted_keys import TaintedKeyWatch
from authz_server.tokens.verification import TokenVerifier, VerifiedAccessToken
from authz_server.waiting import Lane, Step

INTROSPECT_ANY = "introspect:any"

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode

#: The claims of those who act, and of a subject of another issuer.
_PARTIES = ("act", "may_act", "sub_id")


class IntrospectionService:
    """Describes active tokens to their callers.

    Args:
        verifier: verifies the presented token.
        revocations: checks revocation.
        standing: checks the state of a verified token.
        details: finds the authorization details that a caller may see.
        plugins: may add members.
        tainted: reports tokens signed by a tainted key.
        database: answers a batch by one pass.
        sources: describe the tokens of other issuers.
        maximum_ages: how long a response may be kept (seconds), by the risk of its scopes; empty:
            responses have no ``max_age``.
        find_client: finds the client whose name and organisation are added; None: they are not.
        note_seen: receives the client and the scopes of each active token; None: nothing does.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        verifier: TokenVerifier,
        revocations: RevocationState,
        standing: TokenStanding,
        details: DetailRules,
        plugins: PluginManager,
        tainted: TaintedKeyWatch,
        database: Database,
        sources: IntrospectionSources,
        maximum_ages: Mapping[str, int],
        find_client: Callable[[str], ClientEntry | None] | None = None,
        note_seen: Callable[[str, str], None] | None = None,
    ) -> None:
        self._verifier = verifier
        self._revocations = revocations
        self._standing = standing
        self._details = details
        self._plugins = plugins
        self._tainted = tainted
        self._database = database
        self._sources = sources
        self._maximum_ages = maximum_ages
        self._find_client = find_client
        self._note_seen = note_seen

    async def find_active(self, caller: ClientEntry, token: str) -> dict[str, Any] | None:
        """Return the members of an active response, or None.

        Every None costs the same, so that timing reveals no reason.

        Args:
            caller: the authenticated caller.
            token: as presented.

        Raises:
            OAuthError: a plugin failed, or another issuer cannot be asked.
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        verified = await self._verifier.find_verified(token, at_equal_cost=True)
        if verified is None:
            return await self._find_foreign(caller, token) if self._sources else None
        answer = await self._find_answer(caller, verified)
        if answer is None and verified.remembered:
            # A cached verification would make this refusal faster than others.
            self._verifier.spend_one_verification()
        return answer

    async def find_each_active(
        self, caller: ClientEntry, tokens: Sequence[str]
    ) -> list[dict[str, Any] | OAuthError | None]:
        """Return what :meth:`find_active` returns or raises for each token, by one pass.

        Args:
            caller: the authenticated caller.
            tokens: as presented.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        verified, revoked = await Step(Lane.DATABASE, partial(self._look_up, tokens))
        answers: list[dict[str, Any] | OAuthError | None] = []
        for token, each in zip(tokens, verified, strict=True):
            try:
                answers.append(await self._find_looked_up(caller, token, each, revoked))
            except OAuthError as error:
                answers.append(error)
        return answers

    def _look_up(self, tokens: Sequence[str]) -> tuple[list[VerifiedAccessToken | None], set[str]]:
        """Return the verified tokens, and which of them and of their origins are revoked."""
        with self._database.reading() as session:
            seen = self._revocations.seen
            found = self._look_up_once(session, tokens)
            if None in found[0] and self._revocations.seen != seen:
                # Another node may have signed with a key that this process has read just now.
                found = self._look_up_once(session, tokens)
            return found

    def _look_up_once(
        self, session: Session, tokens: Sequence[str]
    ) -> tuple[list[VerifiedAccessToken | None], set[str]]:
        verified = self._verifier.find_all_verified(session, tokens)
        jtis = {each.claims.jti for each in verified if each is not None}
        for each in verified:
            if each is not None:
                jtis.update(origin.jti for origin in each.claims.exchanged_from)
        return verified, self._revocations.find_revoked(session, jtis)

    async def _find_looked_up(
        self,
        caller: ClientEntry,
        token: str,
        verified: VerifiedAccessToken | None,
        revoked: set[str],
    ) -> dict[str, Any] | None:
        if verified is None:
            return await self._find_foreign(caller, token) if self._sources else None
        claims = verified.claims
        answer = None
        if revoked.isdisjoint((claims.jti, *(each.jti for each in claims.exchanged_from))):
            answer = await self._find_visible(caller, verified)
        if answer is None and verified.remembered:
            self._verifier.spend_one_verification()
        return answer

    async def _find_foreign(self, caller: ClientEntry, token: str) -> dict[str, Any] | None:
        sees_all = INTROSPECT_ANY in caller.permissions
        answer = await self._sources.find_active(caller, token, sees_all=sees_all)
        if answer is not None and self._maximum_ages:
            answer["max_age"] = self._maximum_age(
                answer["scope"].split(" "), self._standing.seconds_until(answer["exp"])
            )
        return answer

    async def _find_answer(
        self, caller: ClientEntry, verified: VerifiedAccessToken
    ) -> dict[str, Any] | None:
        claims = verified.claims
        if await self._revocations.is_revoked(claims.jti):
            return None
        if claims.exchanged_from and await self._standing.is_origin_revoked(claims):
            return None
        return await self._find_visible(caller, verified)

    async def _find_visible(
        self, caller: ClientEntry, verified: VerifiedAccessToken
    ) -> dict[str, Any] | None:
        """Return what the caller may see of a token that was not revoked by itself."""
        scopes = self.visible_scopes(caller, verified)
        if not scopes:
            return None
        self._tainted.check(verified.kid, verified.claims)
        return await self._describe(caller, verified, scopes)

    def visible_scopes(self, caller: ClientEntry, verified: VerifiedAccessToken) -> list[str]:
        """Return the spellings of the scopes that the caller may see and the token still has."""
        claims = verified.claims
        sees_all = _sees_all(caller, claims)
        granted = self._standing.granted_scopes(claims, verified.kid)
        own = caller.resource_server
        if not sees_all and (own is None or own.identifier not in claims.audience):
            return []
        return [
            spelling
            for spelling, entry in granted
            if sees_all or entry.resource_server_id == caller.id
        ]

    async def _describe(
        self, caller: ClientEntry, verified: VerifiedAccessToken, scopes: list[str]
    ) -> dict[str, Any]:
        claims, scope = verified.claims, " ".join(scopes)
        if self._note_seen is not None:
            self._note_seen(claims.client_id, scope)
        answer: dict[str, Any] = {
            "active": True,
            "scope": scope,
            "client_id": claims.client_id,
            "sub": claims.sub,
            "aud": claims.aud,
            "iss": claims.iss,
            "exp": claims.exp,
            "iat": claims.iat,
            "jti": claims.jti,
            "token_type": token_type_of(claims.cnf),
        }
        if claims.cnf is not None:
            answer["cnf"] = claims.cnf
        if claims.sender_id:
            answer["sender_id"] = claims.sender_id
        if claims.message_cnf is not None:
            answer["message_cnf"] = claims.message_cnf
        for name in _PARTIES:
            if (party := getattr(claims, name)) is not None:
                answer[name] = party
        if claims.authorization_details:
            self._add_details(answer, caller, claims)
        if self._maximum_ages or self._find_client is not None:
            self._add_chosen(answer, claims, scopes)
        plugins = self._plugins
        if plugins.describes:
            known = self._further(verified) | answer
            answer.update(await Step(Lane.PLUGINS, partial(plugins.introspection_claims, known)))
        return answer

    def _add_details(
        self, answer: dict[str, Any], caller: ClientEntry, claims: AccessTokenClaims
    ) -> None:
        """Add the authorization details that the caller may see (RFC 9396, 9.2)."""
        details = claims.authorization_details
        seen = (
            details if _sees_all(caller, claims) else self._details.of_servers(details, [caller.id])
        )
        if seen:
            answer["authorization_details"] = seen

    def _add_chosen(
        self, answer: dict[str, Any], claims: AccessTokenClaims, scopes: list[str]
    ) -> None:
        """Add the members that the settings choose."""
        if self._maximum_ages:
            left = self._standing.seconds_until(claims.exp)
            answer["max_age"] = self._maximum_age(scopes, left)
        if self._find_client is not None and (client := self._find_client(claims.client_id)):
            # A client by the address of its metadata has neither.
            names = {"client_name": client.name, "organisation": client.organisation}
            answer.update({name: value for name, value in names.items() if value})

    def _maximum_age(self, scopes: list[str], seconds_left: int) -> int:
        """Return how long a response may be kept: the least time of its scopes' risks."""
        risks = self._standing.find_risks(scopes)
        return max(0, min([seconds_left, *(self._maximum_ages[risk] for risk in risks)]))

    def _further(self, verified: VerifiedAccessToken) -> dict[str, Any]:
        """Return the claims that plugins added to the token."""
        payload = _decode_object(verified.payload)
        return {name: value for name, value in payload.items() if name not in RESERVED_CLAIMS}


def _sees_all(caller: ClientEntry, claims: AccessTokenClaims) -> bool:
    return caller.id == claims.client_id or INTROSPECT_ANY in caller.permissions
