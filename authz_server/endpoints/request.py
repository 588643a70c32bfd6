"""A request as the protocol endpoints read it, whichever server received it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from authz_server.errors import OAuthError


@dataclass(slots=True)
class Request:
    """One request: everything that the endpoints may know of it.

    Attributes:
        method: the HTTP method, as sent.
        path: the path as sent, not decoded.
        query: what follows the question mark; empty where there is none.
        headers: by lower-case name. Repeated fields that form a list are joined by commas.
        body: the whole body, decoded from its transfer coding.
        peer: the IP address at the other end of the connection; empty where it is not known.
        fault: why the body could not be read; the endpoint refuses the request with it.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    peer: str = ""
    fault: OAuthError | None = None
