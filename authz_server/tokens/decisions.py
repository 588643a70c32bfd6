"""The decision of plugins on a token that is about to be issued, and what they leave of it."""

from collections.abc import Mapping
from dataclasses import replace

from authz_server.hookspecs import TokenDecision
from authz_server.tokens.authorization import Authorization


def decision_of(
    authorization: Authorization,
    confirmation: Mapping[str, str] | None,
    source_address: str = "",
    authentication_method: str = "",
) -> TokenDecision:
    """Return the decision on a token.

    Args:
        authorization: what the server's own rules permit.
        confirmation: the ``cnf`` of the token; None: a bearer token.
        source_address: the IP address of the client.
        authentication_method: the method by which it authenticated.
    """
    return TokenDecision(
        authorization.client_id,
        authorization.grant_type,
        authorization.scopes,
        authorization.audience,
        authorization.lifetime_seconds,
        confirmation,
        authorization.subject or authorization.client_id,
        authorization.claims,
        source_address,
        authentication_method,
    )


def narrow(authorization: Authorization, decision: TokenDecision) -> Authorization:
    """Return the authorization with what a decision leaves of its scopes and its lifetime."""
    if decision.scopes != authorization.scopes:
        spellings = authorization.scope.split(" ")
        if len(spellings) != len(authorization.scopes):
            # Two spellings of one scope: the canonical names stand for both.
            spellings = [*authorization.scopes]
        kept = [
            spelling
            for name, spelling in zip(authorization.scopes, spellings, strict=True)
            if name in decision.scopes
        ]
        authorization = replace(authorization, scopes=decision.scopes, scope=" ".join(kept))
    if decision.lifetime_seconds == authorization.lifetime_seconds:
        return authorization
    return replace(authorization, lifetime_seconds=decision.lifetime_seconds)
