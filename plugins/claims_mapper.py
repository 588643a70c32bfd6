"""Add claims from a table in the settings: the scopes as an array, constants, other names."""

from collections.abc import Mapping
from typing import Any

from authz_server.plugin_api import RESERVED_CLAIMS, TokenDecision, hookimpl, refer_to

#: The facts of a token that a claim can repeat.
SOURCES = ("audience", "client_id", "grant_type", "scopes", "sender_id", "subject")
#: Where an introspection response has them.
_SHOWN = {"audience": "aud", "client_id": "client_id", "sender_id": "sender_id", "subject": "sub"}
_SETTINGS = ("claims", "clients")


class ClaimsMapper:
    """Adds the claims of its settings, to tokens and introspection responses.

    ``claims`` maps the name of a claim to one of :data:`SOURCES`. ``clients`` has a table of
    constant claims for each client.
    """

    def __init__(self) -> None:
        self._claims: Mapping[str, str] = {}
        self._clients: Mapping[str, Mapping[str, Any]] = {}

    @hookimpl
    def start(self, settings: Mapping[str, Any]) -> None:
        """Read the settings.

        Raises:
            ValueError: a claim or a source cannot be used.
        """
        for key in settings:
            if key not in _SETTINGS:
                raise ValueError(f"there is no key {key!r}: there are {', '.join(_SETTINGS)}")
        claims, clients = (settings.get(key, {}) for key in _SETTINGS)
        tables = [claims, clients, *(clients.values() if isinstance(clients, Mapping) else ())]
        if not all(isinstance(each, Mapping) for each in tables):
            raise ValueError("claims and clients are tables")
        for claim, source in claims.items():
            if source not in SOURCES:
                raise ValueError(f"claims.{claim}: use one of {', '.join(SOURCES)}")
        names = [*claims, *(name for table in clients.values() for name in table)]
        for name in names:
            if not name.strip() or name in RESERVED_CLAIMS:
                raise ValueError(f"the claim {name!r} is reserved or not a name")
        for client_id, table in clients.items():
            refer_to("client", f"clients.{client_id}", client_id)
            taken = table.keys() & claims.keys()
            if taken:
                raise ValueError(f"clients.{client_id}.{min(taken)}: claims has this name too")
        self._claims, self._clients = claims, clients

    @hookimpl
    def token_claims(self, request: TokenDecision) -> dict[str, Any]:
        """Return the claims of a token; one whose source is absent is left out."""
        facts: dict[str, Any] = {
            "audience": list(request.audience),
            "client_id": request.client_id,
            "grant_type": request.grant_type,
            "scopes": list(request.scopes),
            "sender_id": (request.claims or {}).get("sender_id"),
            "subject": request.subject,
        }
        mapped = {claim: facts[source] for claim, source in self._claims.items() if facts[source]}
        return mapped | self._constants(request.client_id)

    @hookimpl
    def introspection_claims(self, claims: Mapping[str, Any]) -> dict[str, Any]:
        """Return the same claims, with the scopes that the caller may see."""
        found: dict[str, Any] = {}
        for claim, source in self._claims.items():
            if source == "scopes":
                found[claim] = claims.get("scope", "").split()
            elif claim in claims:
                found[claim] = claims[claim]
            elif shown := claims.get(_SHOWN.get(source, "")):
                found[claim] = [shown] if source == "audience" and isinstance(shown, str) else shown
        return found | self._constants(claims.get("client_id", ""))

    def _constants(self, client_id: str) -> dict[str, Any]:
        return dict(self._clients.get(client_id, {}))
