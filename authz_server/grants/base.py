"""The phases that every grant runs through; a grant adds its own few lines."""

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from authlib.oauth2.rfc6749.grants import BaseGrant, TokenEndpointMixin

from authz_server.clients.authentication import ClientAuthenticator
from authz_server.clients.credentials import read_credentials
from authz_server.clients.directory import ClientEntry
from authz_server.errors import OAuthError
from authz_server.tokens.authorization import Authorization, AuthorizationRules
from authz_server.tokens.issuer import IssuedToken, TokenIssuer


class TokenRequest(Protocol):
    """What a grant reads of a request to the token endpoint."""

    client: ClientEntry
    form: dict[str, str]
    resources: tuple[str, ...]
    authorization_header: str | None
    source_address: str


class TokenGrant(BaseGrant, TokenEndpointMixin, ABC):  # type: ignore[misc]
    """Authenticate the client, check the grant, have the rules decide, have the mint issue."""

    GRANT_TYPE: ClassVar[str]
    TOKEN_ENDPOINT_HTTP_METHODS: ClassVar[list[str]] = ["POST"]

    #: Set for each server by ``authorization_server``.
    authenticator: ClassVar[ClientAuthenticator]
    rules: ClassVar[AuthorizationRules]
    issuer: ClassVar[TokenIssuer]

    request: TokenRequest

    def validate_token_request(self) -> None:
        """Authenticate the client and check that it may use this grant.

        Raises:
            OAuthError: ``client_authentication_failed``, ``grant_type_not_allowed`` and others.
        """
        request = self.request
        credentials = read_credentials(request.form, request.authorization_header)
        client = self.authenticator.authenticate(credentials, request.source_address)
        request.client = client
        if not client.check_grant_type(self.GRANT_TYPE):
            raise OAuthError("grant_type_not_allowed", client_id=client.id)

    def create_token_response(self) -> tuple[Authorization, IssuedToken]:
        """Return what was authorized and the token for it.

        Raises:
            OAuthError: a rule or a plugin refuses, or no key can sign.
        """
        authorization = self.authorize()
        return authorization, self.issuer.issue(authorization)

    @abstractmethod
    def authorize(self) -> Authorization:
        """Return what the client gets: each grant's own lines.

        Raises:
            OAuthError: a rule refuses.
        """
