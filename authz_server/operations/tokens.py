"""Inspect one token and revoke it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from authz_server.assembly import Services
from authz_server.database.clock import has_certainly_passed
from authz_server.errors import InvalidChangeError, NotFoundError
from authz_server.operations.limited_services import reach_of
from authz_server.operations.revocation import note_revocation
from authz_server.settings import LONGEST_LIFETIME_SECONDS
from authz_server.tokens.claims import AccessTokenClaims
from authz_server.tokens.verification import VerifiedAccessToken
from authz_server.waiting import run

#: The longest ``jti`` that a token of this server can have.
MAXIMUM_JTI_CHARACTERS = 64
#: The state of a token that does not verify.
NO_TOKEN = "no token of this server that is in force: unknown, altered or expired"  # noqa: S105


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClaims:
    """The claims of a token that verifies.

    Attributes:
        kid: the key that signed it; empty for a reference token.
        format: ``jwt`` or ``reference``.
    """

    client_id: str
    scope: str
    audience: tuple[str, ...]
    issued_at: datetime
    expires_at: datetime
    jti: str
    kid: str
    format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenView:
    """A token as operators see it.

    Attributes:
        state: ``active``, ``revoked``, or a sentence that gives the reason for another state.
        claims: its claims; None if it does not verify.
    """

    state: str
    claims: TokenClaims | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedToken:
    """A token that is revoked.

    Attributes:
        jti: its id.
        client_id: the client that it was issued to; empty if only the ``jti`` is known.
        expires_at: the latest time of its expiry.
        changed: True if it was not revoked before.
    """

    jti: str
    client_id: str
    expires_at: datetime
    changed: bool


def inspect_token(services: Services, presented: str) -> TokenView:
    """Return the state and the claims of a token, by the present state of the database.

    Args:
        services: the parts of the server.
        presented: a JWT or a reference token.
    """
    verified = _find_verified(services, presented)
    if verified is None:
        return TokenView(state=NO_TOKEN, claims=None)
    claims = verified.claims
    return TokenView(
        state=_state(services, presented, verified),
        claims=describe_claims(claims, verified.kid),
    )


def describe_claims(claims: AccessTokenClaims, kid: str) -> TokenClaims:
    """Return the claims of a token; ``kid`` is empty for a reference token."""
    return TokenClaims(
        client_id=claims.client_id,
        scope=claims.scope,
        audience=tuple(claims.audience),
        issued_at=datetime.fromtimestamp(claims.iat, UTC),
        expires_at=datetime.fromtimestamp(claims.exp, UTC),
        jti=claims.jti,
        kid=kid,
        format="jwt" if kid else "reference",
    )


def revoke_token(services: Services, presented: str, *, actor: str) -> RevokedToken:
    """Revoke a token, effective at introspection on every node when this returns.

    Args:
        services: the parts of the server.
        presented: a JWT or a reference token.
        actor: the recorded actor.

    Raises:
        NotFoundError: it is not a token of this server, or it has expired.
    """
    claims = _find_revocable(services, presented)
    if claims is None or not _is_own(services, claims.client_id):
        raise NotFoundError(f"It is {NO_TOKEN}. There is nothing to revoke.")
    expires_at = datetime.fromtimestamp(claims.exp, UTC)
    return _revoke(services, claims.jti, claims.client_id, expires_at, actor)


def revoke_token_by_id(services: Services, jti: str, *, actor: str) -> RevokedToken:
    """Revoke a token by the ``jti`` in audit records.

    Args:
        services: the parts of the server.
        jti: the token's id, 1 to 64 printable ASCII characters.
        actor: the recorded actor.

    Raises:
        InvalidChangeError: ``jti`` cannot be the id of a token.
    """
    if not jti.isascii() or not jti.isprintable() or not 1 <= len(jti) <= MAXIMUM_JTI_CHARACTERS:
        raise InvalidChangeError(f"--jti: use 1 to {MAXIMUM_JTI_CHARACTERS} ASCII characters.")
    # A lowered setting does not shorten the lifetime of tokens that were issued before.
    longest = timedelta(seconds=LONGEST_LIFETIME_SECONDS)
    return _revoke(services, jti, "", services.corrected_clock() + longest, actor)


def _revoke(
    services: Services, jti: str, client_id: str, expires_at: datetime, actor: str
) -> RevokedToken:
    with services.transaction() as session:
        added = services.revocations.revoke_token(
            session, jti=jti, client_id=client_id, expires_at=expires_at, actor=actor
        )
        if added:
            note_revocation(services, session, "token", jti, actor=actor)
    return RevokedToken(jti=jti, client_id=client_id, expires_at=expires_at, changed=added)


def _find_revocable(services: Services, presented: str) -> AccessTokenClaims | None:
    """Return the claims of a token that may be in force, also by another clock."""
    services.key_rings.refresh()
    services.feed.poll()
    found = run(services.verifier.find_revocable(presented))
    if found is None:
        return None
    claims, is_in_force = found[0].claims, found[1]
    guard = services.clock_guard
    if not is_in_force and has_certainly_passed(guard, services.database, claims.exp):
        return None
    return claims


def _find_verified(services: Services, presented: str) -> VerifiedAccessToken | None:
    services.key_rings.refresh()
    services.feed.poll()
    return run(services.verifier.find_verified(presented))


def _is_own(services: Services, client_id: str) -> bool:
    """Return whether an administrator with limits may revoke a token of this client."""
    return reach_of(services) is None or services.directory.find(client_id) is not None


def _state(services: Services, presented: str, verified: VerifiedAccessToken) -> str:
    claims = verified.claims
    revocations = services.revocation_state
    facts = claims.client_id, verified.kid, claims.scope.split(" "), claims.issued_at_microseconds
    if run(revocations.is_revoked(claims.jti)) or revocations.find_cut_off(*facts, claims.audience):
        return "revoked"
    client = services.directory.find(claims.client_id)
    if client is None or not client.is_usable(services.corrected_clock().timestamp()):
        return "inactive: its client is disabled, expired, deleted or outside its payment windows"
    if run(services.introspection.find_active(client, presented)) is None:
        return "inactive: its client no longer has any of its scopes"
    return "active"
