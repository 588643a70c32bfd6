"""The client credentials grant (RFC 6749, 4.4)."""

from typing import ClassVar

from authz_server.grants.base import TokenGrant
from authz_server.tokens.authorization import Authorization


class ClientCredentialsGrant(TokenGrant):
    """The client credentials grant, whose subject is the client itself."""

    GRANT_TYPE: ClassVar[str] = "client_credentials"

    async def authorize(self) -> Authorization:
        """Return the authorization for the requested scopes, resources and details."""
        request = self.request
        details = request.form.get("authorization_details")
        if details is not None:
            return self.rules.decide_details(
                request.client,
                self.GRANT_TYPE,
                request.form.get("scope"),
                request.resources,
                details,
            )
        return self.rules.decide(
            request.client, self.GRANT_TYPE, request.form.get("scope"), request.resources
        )
