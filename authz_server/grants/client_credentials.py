"""The client credentials grant (RFC 6749, 4.4)."""

from typing import ClassVar

from authz_server.grants.base import TokenGrant
from authz_server.tokens.authorization import Authorization


class ClientCredentialsGrant(TokenGrant):
    """The client acts for itself: its id is the subject."""

    GRANT_TYPE: ClassVar[str] = "client_credentials"

    async def authorize(self) -> Authorization:
        """Return what the rules give the client for the scopes and resources it asks for."""
        request = self.request
        return self.rules.decide(
            request.client, self.GRANT_TYPE, request.form.get("scope"), request.resources
        )
