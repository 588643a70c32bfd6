"""The JWT bearer grant (RFC 7523, 2.1): an assertion of a registered issuer is the authorization.

The issuer states for whom the client acts. The token's ``sub`` is the subject of the assertion, and
its scopes are never more than the client's own.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import ClassVar

from authz_server.clients.authentication.assertions import (
    MAXIMUM_JTI_CHARACTERS,
    Assertion,
    parse_assertion,
)
from authz_server.clients.cache import ClientCache, ClientEntry
from authz_server.clients.issuers import Issuer, RegisteredIssuers
from authz_server.database.single_use import SingleUse
from authz_server.errors import OAuthError
from authz_server.grants.base import TokenGrant
from authz_server.tokens.authorization import Authorization, ExchangedTokens, PresentedToken
from authz_server.tokens.binding import is_proven
from authz_server.tokens.presented import identify
from keys.errors import TokenRefusedError

JWT_BEARER_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
#: Draft rfc7523bis.
ASSERTION_TYPE = "authorization-grant+jwt"
#: A token lives no longer than its assertion (RFC 7521, 4.1), but at least this.
SHORTEST_LIFETIME_SECONDS = 60


class AssertionGrants:
    """Decides which assertions a client may present as authorization.

    Args:
        issuers: the registered issuers.
        single_use: accepts each assertion once over all processes and nodes.
        directory: the clients, whose ids no foreign subject may have.
        clock: returns the present time.
    """

    def __init__(
        self,
        issuers: RegisteredIssuers,
        single_use: SingleUse,
        directory: ClientCache,
        clock: Callable[[], datetime],
    ) -> None:
        self._issuers = issuers
        self._single_use = single_use
        self._directory = directory
        self._clock = clock

    async def verify(self, assertion: Assertion, client: ClientEntry) -> Issuer:
        """Return the issuer of an assertion that the client may present.

        Raises:
            TokenRefusedError: a rule is broken; the reason is a cause of audit records.
        """
        claims = assertion.claims
        issuer = self._issuers.find(claims.get("iss"))
        if issuer is None:
            raise TokenRefusedError("assertion_issuer")
        issuer.check(assertion.token, claims, self._clock().timestamp(), typ=ASSERTION_TYPE)
        jti = claims.get("jti")
        if not isinstance(jti, str) or not 0 < len(jti) <= MAXIMUM_JTI_CHARACTERS:
            raise TokenRefusedError("assertion_malformed")
        await issuer.verify(assertion.token)
        subject = claims["sub"]
        if subject != client.id and self._directory.find(subject) is not None:
            # A resource server could take the token for one of that client (RFC 9068, 5).
            raise TokenRefusedError("assertion_subject")
        if not any(
            each.issuer in issuer.names and each.fits(claims, issuer.audience)
            for each in client.properties.jwt_bearer_subjects
        ):
            raise TokenRefusedError("assertion_subject")
        return issuer

    def latest_expiry(self, assertion: Assertion) -> int:
        """Return the latest expiry of a token for an assertion (seconds since 1970)."""
        now = int(self._clock().timestamp())
        expires_at: int = assertion.claims["exp"]
        return max(expires_at, now + SHORTEST_LIFETIME_SECONDS)

    async def use_up(self, assertion: Assertion, issuer: Issuer) -> None:
        """Accept an assertion that is right in every other respect.

        Raises:
            TokenRefusedError: it was used before.
            sqlalchemy.exc.SQLAlchemyError: the database cannot store its use.
        """
        claims = assertion.claims
        value = f"{issuer.settings.issuer}\0{claims['jti']}".encode()
        if not await self._single_use.use("jwt_bearer", value, issuer.last_use_at(claims)):
            raise TokenRefusedError("assertion_replayed")


class JwtBearerGrant(TokenGrant):
    """The JWT bearer grant.

    Attributes:
        assertions: decides which assertions a client may present.
    """

    GRANT_TYPE: ClassVar[str] = JWT_BEARER_GRANT

    #: Set for each server by its assembly.
    assertions: ClassVar[AssertionGrants]

    _presented: tuple[Assertion, Issuer]

    async def authorize(self) -> Authorization:
        """Return the authorization for the requested scopes and resources, with the subject.

        Raises:
            OAuthError: ``parameter_missing``; ``grant_invalid``: the assertion is refused; the
                scopes or resources are.
        """
        client, form = self.request.client, self.request.form
        presented = form.get("assertion")
        if presented is None:
            raise OAuthError("parameter_missing", "assertion", client_id=client.id)
        try:
            assertion = parse_assertion(presented)
            issuer = await self.assertions.verify(assertion, client)
            self._require_proven(assertion)
        except TokenRefusedError as refusal:
            raise self._refusal(refusal) from refusal
        self._presented = assertion, issuer
        decided = self._decide(client)
        claims = assertion.claims
        own = dict(decided.claims or {})
        if claims["sub"] != client.id:
            # The client's own claim is about tokens whose subject it is.
            own.pop("may_act", None)
        own["sub_id"] = identify(issuer.settings.issuer, claims["sub"])
        return replace(
            decided,
            claims=own,
            subject=claims["sub"],
            expires_at=min(
                filter(None, (decided.expires_at, self.assertions.latest_expiry(assertion)))
            ),
            exchanged=ExchangedTokens(
                PresentedToken(claims["sub"], issuer.settings.issuer, jti=claims["jti"])
            ),
        )

    async def conclude(self) -> None:
        """Use the assertion up.

        Raises:
            OAuthError: ``grant_invalid``: it was used before.
            sqlalchemy.exc.SQLAlchemyError: the database cannot store its use.
        """
        try:
            await self.assertions.use_up(*self._presented)
        except TokenRefusedError as refusal:
            raise self._refusal(refusal) from refusal

    def _require_proven(self, assertion: Assertion) -> None:
        """Require that the request proves the key of a bound assertion; the token has it too."""
        claims = assertion.claims
        if "cnf" in claims and not is_proven(claims["cnf"], self.request.confirmation):
            raise TokenRefusedError("assertion_confirmation")

    def _refusal(self, refusal: TokenRefusedError) -> OAuthError:
        reason = refusal.reason
        cause = reason if reason.startswith("assertion_") else "assertion_malformed"
        client_id = self.request.client.id
        return OAuthError("grant_invalid", reason, cause=cause, client_id=client_id)

    def _decide(self, client: ClientEntry) -> Authorization:
        form, resources = self.request.form, self.request.resources
        details = form.get("authorization_details")
        if details is None:
            return self.rules.decide(client, self.GRANT_TYPE, form.get("scope"), resources)
        return self.rules.decide_details(
            client, self.GRANT_TYPE, form.get("scope"), resources, details
        )
