"""Requests to the provider, within the time and the size that ``[outbound]`` permits."""

from io import BytesIO
from typing import Any

from authlib.integrations.requests_client import OAuth2Session
from requests import ConnectionError as ConnectionFailedError
from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter

from authz_server.clients.exchanges import Access, Exchanges
from authz_server.clients.outbound import FetchError, Reply, resolve_host, split_url
from authz_server.settings import OutboundSettings
from keys.jose.compact import parse_json_object

_NOT_SENT = frozenset({"host", "content-length", "accept", "accept-encoding", "connection"})
_FIRST_REDIRECT, _FIRST_ERROR, _FIRST_FAULT = 300, 400, 500
#: The operator wrote the URLs, or the provider that the operator named.
_OPERATORS = Access(trusted=True)


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
        self._exchanges = Exchanges(settings, resolve_host)

    def send(self, request: PreparedRequest, *_: Any, **__: Any) -> Response:  # noqa: ANN401 - as inherited
        """Return the answer to a request.

        Raises:
            requests.ConnectionError: there is no answer within the limits, or a redirect.
            TokenRefusedError: the answer is not a JSON object that can be read in one way only.
        """
        try:
            reply = self._send(request)
        except (FetchError, OSError) as error:
            raise ConnectionFailedError(str(error)) from error
        if reply.status < _FIRST_FAULT:
            parse_json_object(reply.body)
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
        body = request.body or b""
        if not isinstance(body, str | bytes):
            raise FetchError("a body of parts is not sent")
        reply = self._exchanges.send(
            request.method or "GET",
            split_url(request.url or "", plain_http=self._settings.plain_http),
            _OPERATORS,
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
