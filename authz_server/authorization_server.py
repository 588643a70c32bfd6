"""Adapter to Authlib: its authorization server and grants on strictly parsed requests."""

from collections.abc import Collection, Iterable, Mapping
from functools import partial

from authlib.oauth2.rfc6749 import AuthorizationServer as AuthlibServer
from authlib.oauth2.rfc6749 import OAuth2Request
from authlib.oauth2.rfc6749.errors import UnsupportedGrantTypeError
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload

from authz_server.clients.authentication.authenticator import ClientAuthenticator
from authz_server.clients.authentication.method import AuthenticationRequest
from authz_server.clients.cache import ClientEntry
from authz_server.errors import OAuthError
from authz_server.grants.base import TokenGrant
from authz_server.plugin_manager import PluginManager
from authz_server.tokens.authorization import Authorization, AuthorizationRules
from authz_server.tokens.binding import TokenBinder
from authz_server.tokens.decisions import decision_of, narrow
from authz_server.tokens.issuer import IssuedToken, TokenIssuer
from authz_server.tokens.limits import TokenLimits
from authz_server.waiting import Lane, Step


class ServerRequest(OAuth2Request):  # type: ignore[misc]
    """A request for Authlib's grants.

    Authlib's own class reads query strings and takes the first of repeated parameters. This one
    holds only parameters that ``endpoints.forms`` accepted. Authlib's check for a secure URI is
    left out, because the settings decide whether the transport is secure.

    Args:
        sender: the form, the headers and the client's address.
        resources: the ``resource`` parameters.
        targets: the normalised URIs of the endpoint.
        further_audiences: the repetitions of ``audience``.
    """

    def __init__(
        self,
        sender: AuthenticationRequest,
        resources: tuple[str, ...],
        targets: Collection[str] = (),
        further_audiences: tuple[str, ...] = (),
    ) -> None:
        self.method = "POST"
        self.sender = sender
        self.payload = BasicOAuth2Payload(sender.form)
        self.resources = resources
        self.targets = targets
        self.further_audiences = further_audiences
        self.client: ClientEntry | None = None
        self.authentication_method = ""
        self.confirmation: Mapping[str, str] | None = None

    @property
    def form(self) -> Mapping[str, str]:
        """The parameters, each once."""
        return self.sender.form


class AuthorizationServer(AuthlibServer):  # type: ignore[misc]
    """Authlib's server with this project's clients, rules and token issuer.

    Refusals are raised and rendered by the endpoint; Authlib renders no responses.

    Args:
        grants: the enabled grants.
        authenticator: authenticates clients.
        rules: decides what a client is granted.
        issuer: issues tokens.
        binder: finds the keys that a token is bound to.
        limits: applies the restrictions of clients.
        plugins: may refuse a token, or permit less of it.
    """

    def __init__(  # noqa: PLR0913 - its parts
        self,
        grants: Iterable[type[TokenGrant]],
        authenticator: ClientAuthenticator,
        rules: AuthorizationRules,
        issuer: TokenIssuer,
        binder: TokenBinder,
        *,
        limits: TokenLimits | None = None,
        plugins: PluginManager | None = None,
    ) -> None:
        super().__init__()
        for grant in grants:
            # A subclass for this server, so that two servers in one process stay apart.
            self.register_grant(grant.with_attributes(authenticator=authenticator, rules=rules))
        self._issuer = issuer
        self._binder = binder
        self._limits = limits
        self._plugins = plugins

    async def issue_token(self, request: ServerRequest) -> tuple[Authorization, IssuedToken]:
        """Run the request's grant.

        Raises:
            OAuthError: the request is refused.
        """
        if "grant_type" not in request.form:
            raise OAuthError("parameter_missing", "grant_type")
        try:
            grant = self.get_token_grant(request)
        except UnsupportedGrantTypeError:
            raise OAuthError("grant_type_unsupported", request.form["grant_type"]) from None
        if request.further_audiences and not grant.ACCEPTS_AUDIENCES:
            raise OAuthError("parameter_repeated")
        binder = self._binder
        proof = binder.read_proof(request.sender, request.targets)
        await grant.authenticate_client()
        grant.validate_token_request()
        client: ClientEntry = grant.request.client
        request.confirmation = binder.confirm(client, proof, request.sender.certificate)
        authorization: Authorization = await grant.authorize()
        restrictions = client.restrictions
        if restrictions is not None and self._limits is not None:
            authorization = await self._limits.apply(
                client, restrictions, authorization, asks_store=grant.uses_up
            )
        if self._plugins is not None and self._plugins.decides:
            decision = decision_of(
                authorization,
                request.confirmation,
                request.sender.address,
                request.authentication_method,
            )
            decide = partial(self._plugins.decide_token, decision)
            authorization = narrow(authorization, await Step(Lane.PLUGINS, decide))
        if proof is not None:
            # Late, so that nothing is remembered of a refused request. A client makes a new proof
            # for each request anyway, so that what its grant uses up is used after it.
            await binder.use(proof, client)
        await grant.conclude()
        if restrictions is not None and self._limits is not None:
            # After it, so that what is presented again spends nothing.
            await self._limits.count(client, restrictions, authorization)
        return authorization, await self._issuer.issue(authorization, request.confirmation)
