"""Add the scopes as an array, for verifiers that compare ``scope`` for equality."""

from collections.abc import Mapping
from typing import Any

from authz_server.plugin_api import RESERVED_CLAIMS, TokenDecision, hookimpl


class ScopeArray:
    """Adds the scopes as a claim of its own, to tokens and introspection responses."""

    def __init__(self) -> None:
        self._claim = "scopes"

    @hookimpl
    def start(self, settings: Mapping[str, Any]) -> None:
        """Read the claim's name from ``claim``, by default ``scopes``.

        Raises:
            ValueError: the name cannot be used.
        """
        for key in settings:
            if key != "claim":
                raise ValueError(f"there is no key {key!r}: the only one is claim")
        claim = settings.get("claim", self._claim)
        if not isinstance(claim, str) or not claim.strip() or claim in RESERVED_CLAIMS:
            raise ValueError(f"claim: {claim!r} is reserved or not a name")
        self._claim = claim

    @hookimpl
    def token_claims(self, request: TokenDecision) -> dict[str, Any]:
        """Return the scopes of the token."""
        return {self._claim: list(request.scopes)}

    @hookimpl
    def introspection_claims(self, claims: Mapping[str, Any]) -> dict[str, Any]:
        """Return the scopes that the caller may see."""
        return {self._claim: claims.get("scope", "").split()}
