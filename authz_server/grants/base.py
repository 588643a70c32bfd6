"""The base class of grants."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Protocol, Self

from authlib.oauth2.rfc6749.grants import BaseGrant, TokenEndpointMixin

from authz_server.clients.authentication.authenticator import ClientAuthenticator
from authz_server.clients.authentication.method import AuthenticationRequest
from authz_server.clients.cache import ClientEntry
from authz_server.errors import OAuthError
from authz_server.tokens.authorization import Authorization, AuthorizationRules


class TokenRequest(Protocol):
    """A request to the token endpoint, as a grant receives it.

    Attributes:
        sender: the form, the headers and the client's address.
        form: the parameters of the body, each once, none of them empty.
        resources: the ``resource`` parameters (RFC 8707).
        client: the authenticated client.
        authentication_method: the method that it used, for example ``client_secret_post``.
        confirmation: the ``cnf`` that the token will have; None: a bearer token.
        further_audiences: the repetitions of ``audience`` (RFC 8693, 2.1).
    """

    sender: AuthenticationRequest
    form: Mapping[str, str]
    resources: tuple[str, ...]
    client: ClientEntry
    authentication_method: str
    confirmation: Mapping[str, str] | None
    further_audiences: tuple[str, ...]


class TokenGrant(BaseGrant, TokenEndpointMixin, ABC):  # type: ignore[misc]
    """Authenticates the client, checks that it may use the grant, and authorizes it.

    One object answers one request. A grant implements :meth:`authorize`; and :meth:`conclude`, if a
    request presents what may be presented only once.

    Attributes:
        GRANT_TYPE: the value of ``grant_type``; a registered name, or an absolute URI
            (RFC 6749, 4.5).
        ACCEPTS_AUDIENCES: whether a request may repeat ``audience``.
        rules: decides which scopes, audience and lifetime a client gets.
        request: the request.
    """

    GRANT_TYPE: ClassVar[str]
    ACCEPTS_AUDIENCES: ClassVar[bool] = False
    TOKEN_ENDPOINT_HTTP_METHODS: ClassVar[list[str]] = ["POST"]

    #: Set for each server by its authorization server.
    authenticator: ClassVar[ClientAuthenticator]
    rules: ClassVar[AuthorizationRules]

    request: TokenRequest

    @classmethod
    def with_attributes(cls, **attributes: object) -> type[Self]:
        """Return a subclass for one server, with attributes such as its settings."""
        return type(cls.__name__, (cls,), attributes)

    async def authenticate_client(self) -> None:
        """Authenticate the client and keep it as ``request.client``.

        Raises:
            OAuthError: ``client_authentication_failed`` and others.
        """
        request = self.request
        authenticated = await self.authenticator.authenticate(request.sender)
        request.client, request.authentication_method = authenticated

    def validate_token_request(self) -> None:
        """Check that the client may use this grant.

        Raises:
            OAuthError: ``grant_type_not_allowed``.
        """
        client = self.request.client
        if not client.check_grant_type(self.GRANT_TYPE):
            raise OAuthError("grant_type_not_allowed", client_id=client.id)

    @abstractmethod
    async def authorize(self) -> Authorization:
        """Return the authorization of the client.

        Raises:
            OAuthError: the grant or a rule refuses the request.
        """

    @property
    def uses_up(self) -> bool:
        """Whether the grant implements :meth:`conclude`."""
        return type(self).conclude is not TokenGrant.conclude

    async def conclude(self) -> None:
        """Use up what the request presented, if that may be presented only once.

        It is awaited after the limits of the client, the plugins that decide, and the proof. Only
        then is the token counted in its budgets, and issued. The request can still be refused: by
        a budget whose last token another request takes meanwhile, and by the issue, for example
        if a plugin fails to add its claims, the lifetime is over or no key can sign.

        Raises:
            OAuthError: it was used before.
        """
