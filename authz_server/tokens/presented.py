"""Verify the tokens that a client presents as an authorization (RFC 8693, 2.1)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from authz_server.clients.cache import ClientCache
from authz_server.clients.issuers import (
    MAXIMUM_CHARACTERS,
    RegisteredIssuers,
    is_text,
    trust_domain,
)
from authz_server.clients.restrictions import MESSAGE_CLAIMS
from authz_server.errors import OAuthError
from authz_server.scopes.catalogue import ScopeCatalogue
from authz_server.tokens.authorization_details import Detail
from authz_server.tokens.claims import Origin
from authz_server.tokens.revocations import RevocationState
from authz_server.tokens.standing import TokenStanding
from authz_server.tokens.verification import TokenVerifier, VerifiedAccessToken
from keys.errors import TokenRefusedError
from keys.jose.compact import MAXIMUM_TOKEN_CHARACTERS, parse_json_object
from keys.jose.foreign import parse_foreign

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a type's name
JWT = "urn:ietf:params:oauth:token-type:jwt"
TOKEN_TYPES = (ACCESS_TOKEN, JWT)
MAXIMUM_ACTORS = 4
_ACTOR_MEMBERS = frozenset({"sub", "iss", "act"})


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """A verified token that stands, of this server or of a registered issuer.

    Attributes:
        subject: its ``sub``.
        issuer: its ``iss``.
        issuer_name: the name of the registered issuer; empty: this server.
        client_id: the client that it was issued to; empty for a token of another issuer.
        jti: its id; empty if it has none.
        expires_at: its ``exp``.
        scopes: the canonical names of its scopes, in order; None: it has no ``scope`` and sets no
            limit, which only a token of another issuer may do.
        confirmation: its ``cnf``.
        actor: its ``act``.
        may_act: its ``may_act``.
        subject_id: the ``sub_id`` of a subject that another issuer has named.
        details: its authorization details.
        origins: the tokens of this server that led to it, itself included with all its audiences.
        message_claims: the claims by which it is bound to the signer of messages.
    """

    subject: str
    issuer: str
    issuer_name: str = ""
    client_id: str = ""
    jti: str = ""
    expires_at: int
    scopes: tuple[str, ...] | None
    confirmation: Mapping[str, Any] | None = None
    actor: Mapping[str, Any] | None = None
    may_act: Mapping[str, Any] | None = None
    subject_id: Mapping[str, Any] | None = None
    details: tuple[Detail, ...] = ()
    origins: tuple[Origin, ...] = ()
    message_claims: Mapping[str, Any] = field(default_factory=dict)


class PresentedTokens:
    """Verifies presented tokens; every refusal has the same response.

    Args:
        verifier: verifies tokens of this server.
        revocations: checks their revocation.
        standing: checks their clients and scopes.
        issuers: the registered issuers of other tokens.
        directory: clients.
        catalogue: finds the scopes of other issuers' tokens.
        now: returns the present time by the database's clock, in seconds since 1970.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        verifier: TokenVerifier,
        revocations: RevocationState,
        standing: TokenStanding,
        issuers: RegisteredIssuers,
        directory: ClientCache,
        catalogue: ScopeCatalogue,
        now: Callable[[], float],
    ) -> None:
        self._verifier = verifier
        self._revocations = revocations
        self._standing = standing
        self._issuers = issuers
        self._directory = directory
        self._catalogue = catalogue
        self._now = now

    async def read(
        self, token: str, token_type: str, *, accepts_issuers: bool = True
    ) -> VerifiedToken:
        """Return a verified token.

        Args:
            token: as presented.
            token_type: ``ACCESS_TOKEN`` for a token of this server, or ``JWT``.
            accepts_issuers: whether a JWT may be of a registered issuer.

        Raises:
            OAuthError: ``exchanged_token_refused``.
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        verified = await self._verifier.find_verified(token)
        if verified is not None:
            if token_type == JWT and not verified.kid:
                raise refusal("it is not a JWT")
            return await self._of_this_server(verified)
        if token_type != JWT or not accepts_issuers:
            raise refusal("it is not a valid token of this server")
        try:
            return await self._of_issuer(token)
        except TokenRefusedError as error:
            raise refusal(str(error)) from None

    async def _of_this_server(self, verified: VerifiedAccessToken) -> VerifiedToken:
        claims = verified.claims
        if await self._revocations.is_revoked(claims.jti):
            raise refusal("it is revoked")
        if claims.exchanged_from and await self._standing.is_origin_revoked(claims):
            raise refusal("a token that it was exchanged from is revoked")
        scopes = [entry.name for _, entry in self._standing.granted_scopes(claims, verified.kid)]
        if not scopes:
            raise refusal(
                "it is cut off, or its client, scopes or details are withdrawn or stopped"
            )
        itself = Origin(
            jti=claims.jti,
            client_id=claims.client_id,
            kid=verified.kid,
            iat=claims.iat,
            aud=claims.audience,
        )
        return VerifiedToken(
            subject=claims.sub,
            issuer=claims.iss,
            client_id=claims.client_id,
            jti=claims.jti,
            expires_at=claims.exp,
            scopes=tuple(dict.fromkeys(scopes)),
            confirmation=claims.cnf,
            actor=claims.act,
            may_act=claims.may_act,
            subject_id=_find_subject_id(claims.sub_id),
            details=claims.authorization_details,
            origins=(*claims.exchanged_from, itself),
            message_claims={
                name: each for name in MESSAGE_CLAIMS if (each := getattr(claims, name))
            },
        )

    async def _of_issuer(self, text: str) -> VerifiedToken:
        """Return a token of a registered issuer; raise TokenRefusedError for any other."""
        token = parse_foreign(text, MAXIMUM_TOKEN_CHARACTERS)
        claims = parse_json_object(token.payload)
        # The token of a SPIFFE trust domain needs no issuer.
        issuer = self._issuers.find(claims.get("iss", trust_domain(claims.get("sub"))))
        if issuer is None:
            raise TokenRefusedError("no registered issuer")
        if not _is_for(claims.get("aud"), issuer.audience):
            raise TokenRefusedError("another audience")
        issuer.check(token, claims, self._now())
        await issuer.verify(token)
        subject, jti = claims["sub"], claims.get("jti", "")
        if self._directory.find(subject) is not None:
            # Resource servers would take the subject for that client.
            raise TokenRefusedError("its subject is the id of a client of this server")
        if not isinstance(jti, str) or len(jti) > MAXIMUM_CHARACTERS:
            raise TokenRefusedError("its jti is not a string, or is too long")
        return VerifiedToken(
            subject=subject,
            issuer=issuer.settings.issuer,
            issuer_name=issuer.name,
            jti=jti,
            expires_at=claims["exp"],
            scopes=self._scopes_of(claims),
            confirmation=_find_object(claims, "cnf"),
            actor=_find_actor(claims, issuer.settings.issuer),
            may_act=_find_object(claims, "may_act"),
            subject_id=identify(issuer.settings.issuer, subject),
        )

    def _scopes_of(self, claims: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Return the scopes of this server that the token of another issuer names."""
        if "scope" not in claims:
            return None
        scope = claims["scope"]
        if not isinstance(scope, str):
            raise TokenRefusedError("its scope is not a string")
        found = [self._catalogue.find(spelling) for spelling in scope.split(" ")]
        return tuple(dict.fromkeys(entry.name for entry in found if entry is not None))


def identify(issuer: str, subject: str) -> Mapping[str, str]:
    """Return the ``sub_id`` of a subject of another issuer (RFC 9493, 3.2.3 and 4.1).

    Two issuers may use one name for two people; ``iss`` and ``sub`` of the token would not differ.
    """
    return {"format": "iss_sub", "iss": issuer, "sub": subject}


def _find_subject_id(value: object) -> Mapping[str, Any] | None:
    if isinstance(value, Mapping) and value.get("format") == "iss_sub":
        return value
    return None


def refusal(detail: str) -> OAuthError:
    """Return the refusal of a presented token.

    Args:
        detail: the reason, for the audit record.
    """
    return OAuthError("exchanged_token_refused", detail)


def _is_for(audience: object, expected: str) -> bool:
    listed = audience if isinstance(audience, list) else [audience]
    return expected in listed


def _find_object(claims: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = claims.get(name)
    if name in claims and not isinstance(value, dict):
        raise TokenRefusedError(f"its {name} is not an object")
    return value


def _find_actor(claims: Mapping[str, Any], issuer: str) -> Mapping[str, Any] | None:
    """Return the ``act`` of another issuer's token, each actor with its issuer."""
    actors: list[dict[str, str]] = []
    inner = claims
    while "act" in inner:
        actor = _find_object(inner, "act")
        if actor is None or not _ACTOR_MEMBERS.issuperset(actor) or len(actors) == MAXIMUM_ACTORS:
            raise TokenRefusedError("its act has other members, or too many actors")
        names = {"iss": actor.get("iss", issuer), "sub": actor.get("sub")}
        if not all(map(is_text, names.values())):
            # The new token has these names too, and still has to fit into a header.
            raise TokenRefusedError("its act names no party")
        actors.append(names)
        inner = actor
    found: dict[str, Any] | None = None
    for names in reversed(actors):
        found = names if found is None else {**names, "act": found}
    return found
