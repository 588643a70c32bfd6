"""The phases that every grant runs through; a grant adds its own few lines."""

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from authlib.oauth2.rfc6749.grants import BaseGrant, TokenEndpointMixin

from authz_server.clients.authentication.authenticator import ClientAuthenticator
from authz_server.clients.authentication.request import authenticate_request
from authz_server.clients.cache import ClientEntry
from authz_server.errors import OAuthError
from authz_server.tokens.authorization import Authorization, AuthorizationRules


class TokenRequest(Protocol):
    """What a grant reads of a request to the token endpoint."""

    client: ClientEntry
    form: dict[str, str]
    resources: tuple[str, ...]
    authorization_header: str | None
    source_address: str


class TokenGrant(BaseGrant, TokenEndpointMixin, ABC):  # type: ignore[misc]
    """Authenticates the client, checks the grant, and decides what the client gets."""

    GRANT_TYPE: ClassVar[str]
    TOKEN_ENDPOINT_HTTP_METHODS: ClassVar[list[str]] = ["POST"]

    #: Set for each server by ``authorization_server``.
    authenticator: ClassVar[ClientAuthenticator]
    rules: ClassVar[AuthorizationRules]

    request: TokenRequest

    async def authenticate_client(self) -> None:
        """Authenticate the client and keep it as ``request.client``.

        Raises:
            OAuthError: ``client_authentication_failed`` and others.
        """
        request = self.request
        request.client = await authenticate_request(
            self.authenticator, request.form, request.authorization_header, request.source_address
        )

    def validate_token_request(self) -> None:
        """Check that the client may use this grant.

        Raises:
            OAuthError: ``grant_type_not_allowed``.
        """
        client = self.request.client
        if not client.check_grant_type(self.GRANT_TYPE):
            raise OAuthError("grant_type_not_allowed", client_id=client.id)

    @abstractmethod
    def authorize(self) -> Authorization:
        """Return what the client gets: each grant's own lines.

        Raises:
            OAuthError: a rule refuses.
        """
