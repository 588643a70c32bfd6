"""The authentication of requests to the admin API, and an access token that is given."""

from typing import Protocol

from authz_server.cli.remote.connection import RemoteError, Response


class Credentials(Protocol):
    """Authenticate the requests to the admin API."""

    def headers(self, method: str, url: str, permission: str) -> dict[str, str]:
        """Return the headers that authenticate a request.

        Args:
            method: its method.
            url: its URL without the query.
            permission: the permission that it needs.

        Raises:
            RemoteError: there is no token.
        """
        ...

    def wants_repetition(self, response: Response) -> bool:
        """Return whether the request is to be sent again, with new headers."""
        ...


class GivenToken:
    """An access token that was given.

    Args:
        token: the token.

    Raises:
        RemoteError: it is not the text of a token.
    """

    def __init__(self, token: str) -> None:
        if not token.isascii() or not token.isprintable() or " " in token or not token:
            raise RemoteError("The access token is empty, or has characters of no token.")
        self._token = token

    def headers(self, method: str, url: str, permission: str) -> dict[str, str]:
        """Return the header with the token."""
        del method, url, permission
        return {"Authorization": f"Bearer {self._token}"}

    def wants_repetition(self, response: Response) -> bool:
        """Return False: the token stays the same."""
        del response
        return False
