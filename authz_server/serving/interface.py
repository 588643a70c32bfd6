"""A worker as its connections use it."""

from typing import TYPE_CHECKING, Protocol

from authz_server.endpoints.request import Request
from authz_server.errors import OAuthError
from authz_server.serving.senders import Sender

if TYPE_CHECKING:
    from authz_server.serving.http import Connection


class Front(Protocol):
    """The worker, as its connections use it.

    Attributes:
        now: the loop's time, some tenths of a second old at most.
        date: the present ``Date`` field with its line end.
        draining: whether the worker is about to stop.
    """

    now: float
    date: bytes
    draining: bool
    header_seconds: float
    body_seconds: float
    keep_alive_seconds: float
    maximum_body_bytes: int

    def opened(self, connection: "Connection") -> Sender:
        """Take note of a new connection."""

    def closed(self, connection: "Connection") -> None:
        """Take note of a connection that has ended."""

    def body_begun(self, connection: "Connection") -> None:
        """Take note of a body that did not arrive together with its header."""

    def holds(self, connection: "Connection") -> bool:
        """Return whether the next bytes wait for :meth:`Connection.release`."""

    def handle(self, connection: "Connection", request: Request) -> None:
        """Answer the request by :meth:`Connection.answer`, now or later; raise nothing."""

    def refuse(self, connection: "Connection", request: Request | None, fault: OAuthError) -> None:
        """Answer a message that is not read to its end, likewise."""
