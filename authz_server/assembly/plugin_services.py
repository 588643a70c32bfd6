"""The services of the server that a plugin may use."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from authz_server.clients.exchanges import Access
from authz_server.clients.outbound import UrlRefusedError, split_url
from authz_server.metrics.events import PluginFailed
from authz_server.settings import Settings
from authz_server.settings.faults import report_fault

if TYPE_CHECKING:
    from authz_server.clients.fetching import Fetcher
    from authz_server.clients.issuers import Issuer
    from authz_server.clients.outbound import Reply


class PluginServices:
    """The services of the server that a plugin may use; a plugin receives them in ``start``.

    Each service is made when it is first used, so that ``start`` opens nothing.

    Args:
        settings: the settings of the server.
        clock: returns the present time.
        find_parts: returns the parts of the process.

    Attributes:
        issuer: the ``iss`` of this server's tokens.
        audit_destination: ``stderr``, ``stdout`` or the path of the audit file.
    """

    def __init__(
        self, settings: Settings, clock: Callable[[], datetime], find_parts: Callable[[], Any]
    ) -> None:
        self.issuer = settings.issuer
        self.audit_destination = settings.audit.destination
        self._default_ring = settings.keys.default_ring
        self._clock = clock
        self._find_parts = find_parts

    def now(self) -> datetime:
        """Return the present time in UTC."""
        return self._clock()

    def find_issuer(self, issuer: object) -> Issuer | None:
        """Return the registered issuer (``[issuers.NAME]``) with this ``iss``; None: none is."""
        found: Issuer | None = self._find_parts().issuers.find(issuer)
        return found

    @property
    def fetcher(self) -> Fetcher:
        """Fetches and caches documents by the rules of ``[outbound]``."""
        found: Fetcher = self._find_parts().fetcher
        return found

    def post(self, url: str, body: bytes, headers: Sequence[str], *, ca_file: str = "") -> Reply:
        """Send a POST to a URL of the settings, on this thread.

        Redirects are not followed, and the limits of ``[outbound]`` apply to time and size.

        Args:
            url: https, or http to a loopback address where the settings permit it.
            body: the body.
            headers: header lines, with the type of the body.
            ca_file: the only authorities that are trusted; empty: those of ``[outbound]``.

        Raises:
            FetchError: there is no answer within the limits.
        """
        access = Access(trusted=True, ca_file=ca_file)
        return self.fetcher.post(url, body, headers, access=access)

    def sign(self, payload: bytes, typ: str, *, ring: str = "", lifetime_seconds: int = 60) -> str:
        """Return a text signed by a key ring, as a compact JWS; in a process that serves.

        Args:
            payload: the text.
            typ: the type in its header, which must not be that of an access token.
            ring: the ring; empty: the default one.
            lifetime_seconds: how long the signature is to be verified.

        Raises:
            KeysError: no key can sign.
            ValueError: the type is that of an access token.
        """
        if typ.lower().removeprefix("application/") in {"at+jwt", "jwt"}:
            raise ValueError("a plugin does not sign access tokens")
        rings = self._find_parts().key_rings
        token: str = rings.sign(
            ring or self._default_ring, payload, typ=typ, lifetime_seconds=lifetime_seconds
        ).token
        return token

    def report_failure(self, plugin: str, hook: str, failure: str) -> None:
        """Count a failure that the plugin itself found, for example on a thread of its own.

        Args:
            plugin: the name of the plugin.
            hook: the hook that the failure belongs to.
            failure: a word for the failure; few different ones, as each is a time series.
        """
        self._find_parts().notify(PluginFailed(plugin, hook, failure))


def require_url(key: str, url: str) -> None:
    """Report an address in a plugin's settings that :meth:`PluginServices.post` never sends to.

    The plugin starts all the same: ``config check`` fails, and ``serve`` logs a warning.

    Args:
        key: the key in the plugin's settings.
        url: its value. Plain http is accepted here; only tests on loopback can use it.

    Raises:
        ValueError: outside of ``start``; the text names the key and the problem.
    """
    try:
        split_url(url, plain_http=True)
    except UrlRefusedError as error:
        report_fault(f"{key}: {error}")


def require_authorities(key: str, ca_file: str) -> None:
    """Report a file in a plugin's settings that has no certificate of an authority.

    The plugin starts all the same: ``config check`` fails, and ``serve`` logs a warning.

    Args:
        key: the key in the plugin's settings.
        ca_file: the path of the file; empty: there is none.

    Raises:
        ValueError: outside of ``start``; the text names the key and the problem.
    """
    try:
        if ca_file:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca_file)
    except OSError:
        report_fault(f"{key}: {ca_file} has no certificate that can be read")
