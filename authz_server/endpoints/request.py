"""An HTTP request as the protocol endpoints read it, independent of the server."""

from collections.abc import Mapping

from msgspec import Struct, field

from authz_server.errors import OAuthError


class Request(Struct):
    """One HTTP request.

    Attributes:
        method: the HTTP method, as sent.
        path: the path as sent, not decoded.
        query: the query string; empty if there is none.
        headers: by lower-case name. Repeated fields that form a list are joined by commas.
        body: the whole body, decoded from its transfer coding.
        peer: the IP address at the other end of the connection; empty if unknown.
        peer_certificate: the certificate that the peer has shown to this server's own TLS, in DER.
        fault: the error met while reading the body; the endpoint refuses the request with it.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    peer: str = ""
    peer_certificate: bytes | None = None
    fault: OAuthError | None = None
    client_id: str = ""
