"""The limits of a registration: what its authority permits, and what an operator has changed."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from sqlalchemy.orm import Session

from authz_server.clients.authentication.shared_secret import CLIENT_SECRET, SharedSecret
from authz_server.clients.models import Client
from authz_server.clients.registration.initial_tokens import CanonicalNames
from authz_server.clients.registration.metadata import (
    KEY_METHODS,
    REGISTRABLE,
    ClientMetadata,
    invalid_metadata,
)
from authz_server.clients.registration.models import Registration

#: The properties that stay as an operator has set them; the keys of a client are its own matter.
_OPERATORS_PROPERTIES = tuple(name for name in REGISTRABLE if name not in {"jwks", "jwks_uri"})


class RegistrationLimits:
    """Chooses the scopes, grant types and method of a client within its limits.

    Args:
        find_canonical_names: finds scopes in the catalogue.
        methods: returns the values of ``token_endpoint_auth_method`` that a client may register.
        algorithms: the algorithms by which clients may sign assertions.
    """

    def __init__(
        self,
        find_canonical_names: CanonicalNames,
        methods: Callable[[], Iterable[str]],
        algorithms: Collection[str],
    ) -> None:
        self._find_canonical_names = find_canonical_names
        self._methods = methods
        self._algorithms = algorithms

    def choose_scopes(
        self, session: Session, metadata: ClientMetadata, permitted: Iterable[str]
    ) -> list[str]:
        """Return the canonical names of the scopes; all permitted ones if none is named.

        Raises:
            OAuthError: ``client_metadata_invalid``; a scope is unknown or not permitted.
        """
        permitted = list(permitted)
        if metadata.scopes is None:
            # A scope may have been removed from the catalogue since.
            known = self._find_canonical_names(session, permitted)
            return [name for name in permitted if name in known]
        names = self._find_canonical_names(session, metadata.scopes)
        chosen = list(dict.fromkeys(names.get(scope, "") for scope in metadata.scopes))
        if not set(chosen) <= set(permitted):
            raise invalid_metadata("scope", "beyond what the registration permits")
        return chosen

    def choose_grant_types(self, metadata: ClientMetadata, permitted: Iterable[str]) -> list[str]:
        """Return the grant types; if none is named, ``client_credentials`` or all permitted ones.

        Raises:
            OAuthError: ``client_metadata_invalid``; a grant type is not permitted.
        """
        permitted = list(permitted)
        if metadata.grant_types is None:
            usual = [name for name in permitted if name == "client_credentials"]
            return usual or permitted
        if not set(metadata.grant_types) <= set(permitted):
            raise invalid_metadata("grant_types", "beyond what the registration permits")
        return list(metadata.grant_types)

    def require_method(self, metadata: ClientMetadata) -> None:
        """Require a method that a client may register, and an algorithm of this server.

        That the algorithm is one of the method is a rule of every client.

        Raises:
            OAuthError: ``client_metadata_invalid``; with it the client could not authenticate.
        """
        if metadata.method not in self._methods():
            raise invalid_metadata("token_endpoint_auth_method", "not a method of this server")
        name = "token_endpoint_auth_signing_alg"
        alg = metadata.properties[name]
        if alg is not None and alg not in self._algorithms:
            raise invalid_metadata(name, "not an algorithm of this server")

    def require_fitting_key(self, client: Client) -> None:
        """Require that the inline keys of a client can authenticate it by its method.

        Args:
            client: the client as stored, so that its keys are sound.

        Raises:
            OAuthError: ``client_metadata_invalid``; no key is for signatures by a permitted
                algorithm.
        """
        jwks = client.properties.get("jwks")
        if jwks is None or client.authentication_method not in KEY_METHODS:
            return
        is_jwt = client.authentication_method == "private_key_jwt"
        if is_jwt and client.properties.get("token_endpoint_auth_signing_alg") is not None:
            return  # that a key signs by it is a rule of every client
        # The libraries take a tenth of a second to import.
        from keys.jose.foreign import parse_key_set  # noqa: PLC0415

        available = parse_key_set(jwks).algorithms
        if is_jwt:
            available &= frozenset(self._algorithms)
        if not available:
            raise invalid_metadata("jwks", "no key signs by a permitted algorithm")


def choose_method(
    client: Client, registration: Registration, metadata: ClientMetadata
) -> tuple[str, str]:
    """Return the method of a client after an update; one that an operator has set stays.

    A client that an operator permits both ways to send its secret reads, and sends back, one of
    them, because the metadata has no name for both.

    Returns:
        the method, and the one that the client itself has registered. The latter stays on record
        beside an operator's, so that the next update does not undo it either.

    Raises:
        OAuthError: ``client_metadata_invalid``; it asks for another method than the operator's.
    """
    present, registered = client.authentication_method, registration.registered["method"]
    if present == registered:
        return metadata.method, metadata.method
    if present == metadata.method or (
        present == CLIENT_SECRET and metadata.method in SharedSecret.NAMES
    ):
        return present, registered
    raise invalid_metadata("token_endpoint_auth_method", "an operator has set another")


def respect_operator(
    client: Client, registration: Registration, metadata: ClientMetadata
) -> tuple[ClientMetadata, Mapping[str, Any]]:
    """Return the metadata of an update with the properties that an operator has set since.

    Scopes and grant types that an operator has set become the limit of updates.

    Returns:
        the metadata, and what the client had registered for each of these properties.
    """
    if client.allowed_scopes != registration.registered_scopes:
        registration.permitted_scopes = list(client.allowed_scopes)
    if client.grant_types != registration.registered_grant_types:
        registration.permitted_grant_types = list(client.grant_types)
    last = registration.registered
    registered = {
        name: last["properties"].get(name)
        for name in _OPERATORS_PROPERTIES
        if client.properties.get(name) != last["properties"].get(name)
    }
    kept = {name: client.properties.get(name) for name in registered}
    return replace(metadata, properties={**metadata.properties, **kept}), registered


def describe_registered(
    client: Client,
    metadata: ClientMetadata,
    method: str,
    earlier: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return what a client has registered, for :attr:`Registration.registered`.

    Args:
        client: the client as stored.
        metadata: its metadata.
        method: the method that it has registered.
        earlier: what it had registered for the properties that an operator has set since. It stays
            on record, so that the next update does not undo them either.
    """
    stored = {name: client.properties.get(name) for name in _OPERATORS_PROPERTIES}
    return {
        "members": dict(metadata.members),
        "method": method,
        "properties": {**stored, **earlier},
    }
