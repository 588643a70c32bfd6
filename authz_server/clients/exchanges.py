"""Requests to URLs of clients, issuers and operators, by the rules of ``[outbound]``."""

import codecs
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from time import monotonic
from typing import NamedTuple
from urllib.parse import urlsplit

from authz_server.clients.outbound import (
    AddressRule,
    FetchError,
    FetchUrl,
    Limits,
    Reply,
    UrlRefusedError,
    make_tls_context,
    send_request,
    split_url,
)
from authz_server.settings.trust import OutboundSettings
from keys.private_files import open_regular

#: How many documents of one origin a process fetches at once: an eighth of its threads for them.
MAXIMUM_FETCHES_OF_ORIGIN = 4
_MAXIMUM_TOKEN_BYTES = 16_384
_OK = 200

Resolve = Callable[[str, float], Sequence[str]]


class BusyError(FetchError):
    """This process fetches too much at present; the URL is not at fault."""


class Access(NamedTuple):
    """The means of a fetch; an operator's settings give more than a client's registration.

    Attributes:
        trusted: the operator wrote the URL, so that its addresses are not checked and the
            allowed origins do not apply.
        ca_file: the only authorities that are trusted; empty: those of ``[outbound]``.
        token_file: a file with a bearer token to send, read for each fetch; empty: none.
    """

    trusted: bool = False
    ca_file: str = ""
    token_file: str = ""


class Exchanges:
    """Applies the rules of the settings to each fetch."""

    def __init__(self, settings: OutboundSettings, resolve: Resolve) -> None:
        self._settings = settings
        self._resolve = resolve
        self._rule = AddressRule(settings.allowed_networks)
        self._tls: dict[str, ssl.SSLContext] = {}
        self._lock = threading.Lock()
        self._under_way: dict[str, int] = {}

    def check(self, url: str, access: Access) -> FetchUrl:
        """Return the parts of a URL; UrlRefusedError if it may not be fetched."""
        parts = split_url(url, plain_http=self._settings.plain_http)
        allowed = self._settings.allowed_origins
        if allowed and not access.trusted and not _is_allowed(parts, allowed):
            raise UrlRefusedError("the origin is not one of outbound.allowed_origins")
        return parts

    def get(self, url: str, access: Access, began: float) -> Reply:
        """Get a document on this thread.

        Args:
            url: the document.
            access: what the fetch may use.
            began: the monotonic time at which the request began to wait for a thread.

        Raises:
            BusyError: it waited too long, or too many fetches of the origin are under way.
            FetchError: there is no answer in time, or not a usable one.
        """
        if monotonic() > began + self._settings.timeout_seconds / 2:
            raise BusyError("too many other documents are being fetched")
        parts = self.check(url, access)
        with self._place_of(parts.origin):
            reply = self.send("GET", parts, access)
        if reply.status != _OK:
            raise reply.as_error()
        return reply

    @contextmanager
    def _place_of(self, origin: str) -> Iterator[None]:
        with self._lock:
            count = self._under_way.get(origin, 0)
            if count >= MAXIMUM_FETCHES_OF_ORIGIN:
                raise BusyError("too many documents of this origin are being fetched")
            self._under_way[origin] = count + 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way[origin] -= 1
                if not self._under_way[origin]:
                    del self._under_way[origin]

    def send(
        self,
        method: str,
        parts: FetchUrl,
        access: Access,
        headers: Sequence[str] = (),
        body: bytes = b"",
    ) -> Reply:
        """Return the answer to a request on this thread, of any status.

        Raises:
            FetchError: the host may not be reached, or there is no answer within the limits.
        """
        settings = self._settings
        limits = Limits(monotonic() + settings.timeout_seconds, settings.maximum_bytes)
        try:
            addresses = self._find_addresses(parts, limits)
            tls = self._tls_context(access) if parts.scheme == "https" else None
            sent = [*headers, *(_authorization(access.token_file) if access.token_file else ())]
        except TimeoutError as error:
            raise FetchError(str(error)) from error
        except OSError as error:
            raise FetchError(f"a file cannot be used: {error.strerror}") from error
        if not access.trusted:
            self._rule.require(addresses)
        if tls is None and not all(ip_address(each).is_loopback for each in addresses):
            raise UrlRefusedError("http is for loopback addresses only")
        return send_request(method, parts, addresses, tls, limits, sent, body)

    def _find_addresses(self, parts: FetchUrl, limits: Limits) -> Sequence[str]:
        try:
            return [str(ip_address(parts.host))]
        except ValueError:
            return self._resolve(parts.host, limits.seconds_left())

    def _tls_context(self, access: Access) -> ssl.SSLContext:
        alone = bool(access.ca_file)
        ca_file = access.ca_file or self._settings.ca_file
        key = f"{alone}:{ca_file}"
        context = self._tls.get(key)
        if context is None:
            context = self._tls[key] = make_tls_context(ca_file, alone=alone)
        return context


def _authorization(token_file: str) -> list[str]:
    """Return the header with the token of a file; the file may have changed."""
    with open_regular(token_file) as file:
        token = file.read(_MAXIMUM_TOKEN_BYTES + 1).removeprefix(codecs.BOM_UTF8).strip()
    if len(token) > _MAXIMUM_TOKEN_BYTES or not re.fullmatch(rb"[A-Za-z0-9._~+/=-]+", token):
        raise FetchError("the token file holds no token that can be sent")
    return [f"Authorization: Bearer {token.decode()}"]


def _is_allowed(parts: FetchUrl, allowed: Sequence[str]) -> bool:
    for origin in allowed:
        scheme, _, host = origin.partition("://")
        if host.startswith("*."):
            pattern = urlsplit(f"{scheme}://{host[2:]}")
            port = f":{pattern.port}" if pattern.port else ""
            suffix = f".{pattern.hostname}{port}"
            if parts.scheme == scheme and parts.origin.endswith(suffix):
                return True
        elif parts.origin == origin:
            return True
    return False
