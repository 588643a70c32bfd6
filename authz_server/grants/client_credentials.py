"""The client credentials grant (RFC 6749, 4.4)."""

from typing import ClassVar

from authz_server.grants.base import TokenGrant
from authz_server.tokens.authorization import Authorization


class ClientCredentialsGrant(TokenGrant):
    """The client credentials grant, whose subject is the client itself."""

    GRANT_TYPE: ClassVar[str] = "client_credentials"

    async def authorize(self) -> Authorization:
        """Return the authorization for the requested scopes and resources."""
        request = self.request
        return self.rules.decide(
            request.client, self.GRANT_TYPE, request.form.get("scope"), request.resources
        )
