"""hvac on this package's own transport: its knowledge of the API, none of its connections.

hvac alone waits 30 s, asks one address, and takes proxies, tokens and certificates from the
environment. None of that reaches an adapter that it is handed.
"""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import hvac
from hvac.adapters import JSONAdapter
from hvac.utils import raise_for_error

from keys.backends.vault.transport import VaultReply, VaultRequest

OK_STATUS = 200
FIRST_ERROR_STATUS = 400
#: Methods that change nothing, so that asking twice does no harm.
READING_METHODS = frozenset({"GET", "LIST", "HEAD"})

Send = Callable[[VaultRequest], VaultReply]


class VaultClients(Protocol):
    """What gives hvac clients of one Vault."""

    def client(self, token: str = "") -> Any:  # noqa: ANN401 - the library has no types
        """Return an hvac client with that token, or with none."""

    def load_client_certificate(self) -> None:
        """Show the TLS client certificate as its files are now; BackendDenied if they are bad."""


class VaultResponse:
    """As much of a ``requests.Response`` as hvac looks at."""

    def __init__(self, reply: VaultReply) -> None:
        self.status_code = reply.status
        self.ok = reply.status < FIRST_ERROR_STATUS
        self.text = json.dumps(reply.body)
        self._body = reply.body

    def json(self) -> Mapping[str, Any]:
        """Return the parsed body."""
        return self._body


class TransportAdapter(JSONAdapter):  # type: ignore[misc] # the library has no types
    """An hvac adapter that sends through a function.

    Args:
        send: Sends a request; its errors pass through hvac as they are.
    """

    def __init__(self, send: Send, **_: object) -> None:
        # The inherited constructor would make a session of the requests library.
        self._send = send
        self.base_uri, self.token, self.namespace, self.session = "", "", None, None

    def close(self) -> None:
        """Do nothing: the connections belong to the transport."""

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        raise_exception: bool = True,  # noqa: FBT001, FBT002 - as inherited
        **options: Any,  # noqa: ANN401 - as inherited
    ) -> Any:  # noqa: ANN401 - as inherited
        """Return the JSON of a reply 200, else a response; raise hvac's errors from 400 on."""
        method, path = method.upper(), encode_path(url)
        if options.get("params"):
            path += "?" + urlencode(options["params"])
        extra = dict(headers or {})
        if options.get("wrap_ttl"):
            extra["X-Vault-Wrap-TTL"] = str(options["wrap_ttl"])
        content = options.get("json")
        body = b"" if content is None else json.dumps(content).encode()
        reading = method in READING_METHODS
        reply = self._send(VaultRequest(method, path, body, extra, repeatable=reading))
        if reply.status == OK_STATUS:
            return reply.body
        if reply.status >= FIRST_ERROR_STATUS and raise_exception:
            errors = reply.body.get("errors")
            raise_for_error(method, path, reply.status, errors=errors, json=reply.body)
        return VaultResponse(reply)


def make_client(send: Send) -> Any:  # noqa: ANN401 - the library has no types
    """Return an hvac client whose every request goes through ``send``."""
    # Everything that hvac would otherwise look for in the environment is given.
    adapter = partial(TransportAdapter, send)
    return hvac.Client(url="", token="", verify=True, adapter=adapter)


@lru_cache(maxsize=256)
def encode_path(url: str) -> str:
    """Return a path from ``/v1/`` on, encoded, with single slashes."""
    return "/" + quote("/".join(part for part in url.split("/") if part), safe="/")
