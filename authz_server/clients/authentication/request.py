"""Authenticates the sender of a form: one way for every endpoint and every grant."""

from collections.abc import Mapping
from functools import partial

from authz_server.clients.authentication.authenticator import ClientAuthenticator
from authz_server.clients.authentication.credentials import read_credentials
from authz_server.clients.cache import ClientEntry
from authz_server.waiting import Lane, Step


async def authenticate_request(
    authenticator: ClientAuthenticator,
    form: Mapping[str, str],
    authorization: str | None,
    address: str,
) -> ClientEntry:
    """Return the client that the request proves; a slow hash waits in a lane of its own.

    Args:
        authenticator: checks the credentials.
        form: the body's parameters, each once.
        authorization: the ``Authorization`` header, or None.
        address: the client's IP address.

    Raises:
        OAuthError: as :func:`~authz_server.clients.authentication.credentials.read_credentials` and
            :meth:`~authz_server.clients.authentication.authenticator.ClientAuthenticator.authenticate`.
    """
    credentials = read_credentials(form, authorization)
    if authenticator.takes_long(credentials):
        return await Step(Lane.SECRETS, partial(authenticator.authenticate, credentials, address))
    return authenticator.authenticate(credentials, address)
