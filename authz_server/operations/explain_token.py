"""Explain a token to an operator: whether it is active for a caller, and the reason.

The token is neither stored nor recorded. The rules are those of introspection.
"""

from dataclasses import dataclass, replace

from authz_server.assembly import Services
from authz_server.clients.cache import ClientEntry
from authz_server.errors import NotFoundError
from authz_server.operations.explained_causes import REMEDIES, TOKEN_REMEDIES, is_stop_seen
from authz_server.operations.limited_services import reach_of, without_limits
from authz_server.operations.tokens import TokenClaims, describe_claims
from authz_server.scopes.catalogue import ScopeEntry
from authz_server.tokens.claims import AccessTokenClaims, read_instant
from authz_server.tokens.models import RevokedToken
from authz_server.tokens.verification import TokenNotInForceError, VerifiedAccessToken
from authz_server.waiting import run
from keys.errors import TokenRefusedError
from keys.jose.compact import parse_compact

_PROBLEMS = {"expired": "expired", "not yet valid": "not_yet_valid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenExplanation:
    """The response of introspection to a caller, and the reason.

    Attributes:
        active: the ``active`` of the response.
        caller: the id of the resource server or client that asks.
        cause: the cause of an inactive token; empty if it is active.
        reason: the cause in a sentence.
        remedy: the change that would help; empty if it is active.
        scopes: the scopes that the caller sees, as the token spells them.
        claims: its claims; None if its signature is not one of this server.
    """

    active: bool
    caller: str
    cause: str = ""
    reason: str = ""
    remedy: str = ""
    scopes: tuple[str, ...] = ()
    claims: TokenClaims | None = None


@dataclass(frozen=True, slots=True)
class _Finding:
    """The cause of an inactive token.

    Attributes:
        cause: the cause.
        reason: the cause in a sentence.
        detail: the stop that is in force; empty if the cause is another one.
        client: the client that the cause is about; empty if it is about none.
    """

    cause: str
    reason: str
    detail: str = ""
    client: str = ""


_OF_ORIGIN = _Finding("origin_revoked", "A token that it was exchanged from is not active.")


def explain_token(services: Services, presented: str, caller_id: str) -> TokenExplanation:
    """Return whether a token is active for a caller, and the reason.

    The whole server is judged. What the reader does not see is not named.

    Args:
        services: the parts of the server, as the reader sees them.
        presented: a JWT or a reference token.
        caller_id: the resource server or client that asks.

    Raises:
        NotFoundError: there is no such caller.
    """
    services.key_rings.refresh()
    services.feed.poll()
    caller = services.directory.find(caller_id)
    if caller is None:
        raise NotFoundError(
            f"There is no resource server {caller_id!r}."
            " `authz-server resource-server list` shows them."
        )
    whole = without_limits(services)
    try:
        verified = run(whole.verifier.verify(presented))
    except TokenNotInForceError as refusal:
        cause = _PROBLEMS.get(refusal.reason, "signature")
        found = _Finding(cause, f"The token is not in force: {refusal.reason}.")
        return _inactive(caller, found, refusal.claims, refusal.kid)
    except TokenRefusedError as refusal:
        return _inactive(caller, _explain_signature(whole, presented, refusal.reason))
    found_cause = _find_cause(whole, caller, verified)
    if found_cause is not None:
        shown = _shown(services, verified.claims, found_cause)
        return _inactive(caller, shown, verified.claims, verified.kid)
    return TokenExplanation(
        active=True,
        caller=caller.id,
        scopes=tuple(whole.introspection.visible_scopes(caller, verified)),
        claims=describe_claims(verified.claims, verified.kid),
    )


def _shown(services: Services, claims: AccessTokenClaims, found: _Finding) -> _Finding:
    """Return a finding without the names of what a reader with limits does not see."""
    if reach_of(services) is None:
        return found
    if found.client not in {"", claims.client_id} and services.directory.find(found.client) is None:
        return _OF_ORIGIN
    if found.detail and not is_stop_seen(services, found.detail):
        return replace(found, reason="A stop is in force outside your limits.", detail="")
    return found


def _inactive(
    caller: ClientEntry, found: _Finding, claims: AccessTokenClaims | None = None, kid: str = ""
) -> TokenExplanation:
    remedy = (TOKEN_REMEDIES | REMEDIES).get(found.cause, "")
    client_id = claims.client_id if claims is not None else ""
    return TokenExplanation(
        active=False,
        caller=caller.id,
        cause=found.cause,
        reason=found.reason,
        remedy=remedy.format(client=client_id, detail=found.detail),
        claims=describe_claims(claims, kid) if claims is not None else None,
    )


def _explain_signature(services: Services, presented: str, problem: str) -> _Finding:
    """Return the state of the key that the token names, if this server has had it."""
    try:
        kid = str(parse_compact(presented).header["kid"])
    except TokenRefusedError:
        kid = ""
    rings = services.key_store.load_rings(services.clock()) if kid else ()
    states = {key.kid: key.state for ring in rings for key in ring.keys}
    if kid in states and problem == "unknown key":
        return _Finding("key", f"The key {kid} is {states[kid].value}: no node accepts it.")
    return _Finding("signature", f"It is not a token of this server: {problem}.")


def _find_cause(
    services: Services, caller: ClientEntry, verified: VerifiedAccessToken
) -> _Finding | None:
    """Return the cause for which introspection answers inactive; None: the token is active."""
    claims, kid = verified.claims, verified.kid
    if (revoked := _explain_revocation(services, claims, kid)) is not None:
        return revoked
    if run(services.standing.is_origin_revoked(claims)) or _is_origin_cut_off(services, claims):
        return _Finding("origin_revoked", "A token that it was exchanged from is revoked.")
    if not services.standing.granted_scopes(claims, kid):
        return _explain_standing(services, claims)
    if services.introspection.visible_scopes(caller, verified):
        return None
    own = caller.resource_server
    if own is not None and own.identifier in claims.audience:
        return _Finding("scopes_of_others", f"None of its scopes is assigned to {caller.id}.")
    audience = ", ".join(claims.audience)
    return _Finding("audience", f"The token is for {audience}, and {caller.id} is not among them.")


def _explain_revocation(services: Services, claims: AccessTokenClaims, kid: str) -> _Finding | None:
    """Return how the token was revoked, by itself or with others; None if it was not."""
    state = services.revocation_state
    with services.database.reading() as session:
        # Brings the cut-offs up to date.
        state.find_revoked(session, [claims.jti])
        revoked = session.get(RevokedToken, claims.jti)
    if revoked is not None:
        moment = revoked.revoked_at.isoformat(timespec="seconds")
        return _Finding("token_revoked", f"The token was revoked at {moment}.")
    found = state.find_cut_off(
        claims.client_id,
        kid,
        claims.scope.split(" "),
        claims.issued_at_microseconds,
        claims.audience,
    )
    if found is None:
        return None
    kind, subject = found
    of_what = f"tokens of the {kind} {subject}" if subject else "all tokens"
    return _Finding("cut_off", f"The token was revoked with {of_what}.")


def _is_origin_cut_off(services: Services, claims: AccessTokenClaims) -> bool:
    """Return whether a token that this one came from was revoked with others, or its key was."""
    spellings = claims.scope.split(" ")
    return any(
        services.standing.is_key_ended(each.kid)
        or services.revocation_state.find_cut_off(
            each.client_id,
            each.kid,
            () if each.acts else spellings,
            read_instant(each.jti, each.iat),
            each.aud,
        )
        for each in claims.exchanged_from
    )


def _explain_standing(services: Services, claims: AccessTokenClaims) -> _Finding:
    """Return the cause for which the token, or one that it was exchanged from, has no scope."""
    clients = [claims.client_id, *(origin.client_id for origin in claims.exchanged_from)]
    now = services.corrected_clock().timestamp()
    for client_id in dict.fromkeys(clients):
        found = _explain_client(services, client_id, now)
        if found is not None:
            return found
    stops = services.stops
    entries = [services.catalogue.find(spelling) for spelling in claims.scope.split(" ")]
    stopped = [stop for each in entries if each is not None and (stop := stops.find_of_scope(each))]
    if stopped:
        kind = stopped[0].partition(" ")[0].replace("-", "_")
        return _Finding(f"{kind}_stopped", f"A stop is in force: {stopped[0]}.", stopped[0])
    client = services.directory.find(claims.client_id)
    if client is not None and client.created_at * 1_000_000 > claims.issued_at_microseconds:
        return _Finding("client_replaced", f"The client {client.id} is younger than the token.")
    if claims.authorization_details and any(
        each is not None and client is not None and _may_have(client, each) for each in entries
    ):
        return _Finding("details_withdrawn", "Its authorization details are no longer granted.")
    return _Finding(
        "scopes_withdrawn",
        f"The client {claims.client_id} has none of its scopes, or may not reach their resource"
        " server.",
    )


def _may_have(client: ClientEntry, scope: ScopeEntry) -> bool:
    reach = client.allowed_resource_servers
    return scope.name in client.allowed_scopes and (not reach or scope.resource_server_id in reach)


def _explain_client(services: Services, client_id: str, now: float) -> _Finding | None:
    """Return the cause for which no token of the client is active; None if there is none."""
    client = services.directory.find(client_id)
    if client is None:
        return _Finding("client_deleted", f"The client {client_id} was deleted.", client=client_id)
    stop = services.stops.find_of_client(client_id)
    if stop:
        kind = stop.partition(" ")[0].replace("-", "_")
        reason = f"The client {client_id} is stopped: {stop}."
        return _Finding(f"{kind}_stopped", reason, stop, client_id)
    if client.is_usable(now):
        return None
    cause = client.find_refusal(now) or "outside_payment_window"
    reason = f"The client {client_id} may not be used: {cause.replace('_', ' ')}."
    return _Finding(cause, reason, client=client_id)
