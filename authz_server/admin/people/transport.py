"""Requests to the provider, within the time and the size that ``[outbound]`` permits."""

import ssl
from functools import lru_cache
from io import BytesIO
from ipaddress import ip_address
from time import monotonic
from typing import Any

from authlib.integrations.requests_client import OAuth2Session
from requests import ConnectionError as ConnectionFailedError
from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter

from authz_server.clients.outbound import (
    FetchError,
    Limits,
    Reply,
    UrlRefusedError,
    make_tls_context,
    resolve_host,
    send_request,
    split_url,
)
from authz_server.settings import OutboundSettings

_NOT_SENT = frozenset({"host", "content-length", "accept", "accept-encoding", "connection"})
_FIRST_REDIRECT, _FIRST_ERROR = 300, 400


class BoundedAdapter(BaseAdapter):
    """Sends requests that end, complete or not, by ``outbound.timeout_seconds``.

    A time-out of the library's own adapter begins again with each byte, and its answers may have
    any size.

    Args:
        settings: the limits, and the authorities of TLS.
    """

    def __init__(self, settings: OutboundSettings) -> None:
        super().__init__()
        self._settings = settings

    def send(self, request: PreparedRequest, *_: Any, **__: Any) -> Response:  # noqa: ANN401 - as inherited
        """Return the answer to a request.

        Raises:
            requests.ConnectionError: there is no answer within the limits, or a redirect.
        """
        try:
            reply = self._send(request)
        except (FetchError, OSError) as error:
            raise ConnectionFailedError(str(error)) from error
        response = Response()
        response.status_code = reply.status
        response.raw = BytesIO(reply.body)
        response.encoding = "utf-8"
        response.url = request.url or ""
        response.request = request
        return response

    def close(self) -> None:
        """Do nothing: no connection is kept."""

    def _send(self, request: PreparedRequest) -> Reply:
        settings = self._settings
        limits = Limits(monotonic() + settings.timeout_seconds, settings.maximum_bytes)
        url = split_url(request.url or "", plain_http=settings.plain_http)
        addresses = resolve_host(url.host, limits.seconds_left())
        tls = _context(settings.ca_file) if url.scheme == "https" else None
        if tls is None and not all(ip_address(each).is_loopback for each in addresses):
            raise UrlRefusedError("http is for loopback addresses only")
        body = request.body or b""
        if not isinstance(body, str | bytes):
            raise FetchError("a body of parts is not sent")
        reply = send_request(
            request.method or "GET",
            url,
            addresses,
            tls,
            limits,
            [
                f"{name}: {_text(value)}"
                for name, value in request.headers.items()
                if name.lower() not in _NOT_SENT
            ],
            body.encode() if isinstance(body, str) else body,
        )
        if _FIRST_REDIRECT <= reply.status < _FIRST_ERROR:
            raise FetchError(f"the answer has status {reply.status}")
        return reply


class ProviderSession(OAuth2Session):  # type: ignore[misc]
    """A session of Authlib whose requests are bounded, and free of the environment's proxies."""

    def __init__(self, *, outbound: OutboundSettings, **options: Any) -> None:  # noqa: ANN401 - as inherited
        super().__init__(**options)
        self.trust_env = False
        for prefix in ("https://", "http://"):
            self.mount(prefix, BoundedAdapter(outbound))


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


@lru_cache(4)
def _context(ca_file: str) -> ssl.SSLContext:
    return make_tls_context(ca_file)
