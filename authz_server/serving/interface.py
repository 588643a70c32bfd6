"""Interface of a worker to its connections."""

from typing import TYPE_CHECKING, Protocol

from authz_server.endpoints.request import Request
from authz_server.errors import OAuthError
from authz_server.serving.senders import Sender

if TYPE_CHECKING:
    from collections.abc import Callable

    from authz_server.serving.http import Connection


class Front(Protocol):
    """A worker, as its connections use it.

    Attributes:
        now: the loop's time, up to some tenths of a second old.
        date: the present ``Date`` field with its line end.
        draining: whether the worker is about to stop.
        body_limit: returns the size in bytes of the largest body of a request, whose header is
            complete; raises OAuthError if it cannot be received now.
    """

    now: float
    date: bytes
    draining: bool
    header_seconds: float
    body_seconds: float
    keep_alive_seconds: float
    body_limit: "Callable[[Connection, Request], int]"

    def opened(self, connection: "Connection") -> Sender:
        """Add a connection."""

    def closed(self, connection: "Connection") -> None:
        """Remove a connection."""

    def body_begun(self, connection: "Connection") -> None:
        """Count a body that did not arrive together with its header."""

    def holds(self, connection: "Connection") -> bool:
        """Return whether the next bytes must wait for :meth:`Connection.release`."""

    def handle(self, connection: "Connection", request: Request) -> None:
        """Respond by :meth:`Connection.answer`, now or later; must not raise."""

    def refuse(self, connection: "Connection", request: Request | None, fault: OAuthError) -> None:
        """Respond to an incomplete message, likewise."""
