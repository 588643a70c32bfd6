"""The sessions that the console needs: who is logged in, and proof that a form is ours."""

from typing import Protocol
from wsgiref.types import WSGIEnvironment

from authz_server.operations.permissions import Caller


class Sessions(Protocol):
    """Finds the operator of a request."""

    def find_session(self, environ: WSGIEnvironment) -> Caller | None:
        """Return the operator; None: the request has no session that counts."""

    def csrf_token(self, environ: WSGIEnvironment) -> str:
        """Return the token that a form of the session sends back."""

    def require_own_form(self, environ: WSGIEnvironment, token: str) -> None:
        """Require that a write comes from a form of this session on this site.

        Raises:
            Problem: it does not.
        """
