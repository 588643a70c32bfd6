"""Requests over HTTPS to the server and to its token endpoint.

The environment's proxies are not used, and redirects are not followed: a token is sent to the host
that the operator named and to no other.
"""

import ssl
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from authz_server.errors import OperatorError

#: Orders at a Vault take their time.
TIMEOUT_SECONDS = 60.0
MAXIMUM_BODY_BYTES = 64 * 1024 * 1024


class RemoteError(OperatorError):
    """The server cannot be reached, or its answer cannot be used."""


class LostConnectionError(RemoteError):
    """The connection ended without an answer: the request may have been carried out."""


class Response(NamedTuple):
    """A response; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Place(NamedTuple):
    """A base URL: its scheme, host, port and path without a slash at its end."""

    scheme: str
    host: str
    port: int | None
    path: str


def read_url(url: str, name: str) -> Place:
    """Return the parts of a base URL.

    Args:
        url: https, or http on loopback.
        name: its name in the message of an error.

    Raises:
        RemoteError: it is another URL, or malformed.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise RemoteError(f"{name}: {url!r} is not a URL.") from error
    if not url.isascii() or not host or "@" in parts.netloc or parts.query or parts.fragment:
        raise RemoteError(f"{name}: use a URL such as https://admin.example.org, not {url!r}.")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise RemoteError(f"{name}: use https; http is for loopback alone.")
    return Place(parts.scheme, host, port, parts.path.rstrip("/"))


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The certificates of connections.

    Attributes:
        ca_file: certificates to trust instead of the system's; None: those of the system.
        certificate_file: the client's own certificate; None: it has none.
        key_file: its private key; None: it is in the same file.
    """

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    def without_certificate(self) -> "Trust":
        """Return the same without the client's own certificate."""
        return Trust(ca_file=self.ca_file)

    def make_context(self) -> ssl.SSLContext:
        """Return the context of connections.

        Raises:
            RemoteError: a file cannot be used.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise RemoteError(f"--ca-file: {self.ca_file} has no certificates.") from error
        if self.certificate_file is not None:
            try:
                # Without a password OpenSSL would ask at the terminal for that of a key.
                context.load_cert_chain(self.certificate_file, self.key_file, password="")
            except OSError as error:
                raise RemoteError(
                    f"--certificate-file: {self.certificate_file} has no certificate in PEM, or its"
                    " private key is not there without a password."
                ) from error
        return context


class Connection:
    """Sends requests to one server, each on a connection of its own.

    A kept connection may end while the command asks a question, and a change is not sent twice.

    Args:
        url: the base URL: https, or http on loopback.
        name: its name in the messages of errors.
        trust: the certificates.

    Raises:
        RemoteError: the URL or a file cannot be used.
    """

    def __init__(self, url: str, name: str, trust: Trust) -> None:
        self._place = read_url(url, name)
        self.url = url.rstrip("/")
        self._context = None
        if self._place.scheme == "https":
            self._context = trust.make_context()
        elif trust.certificate_file is not None:
            raise RemoteError(f"{name}: {url} is not https, which a certificate needs.")

    def send(
        self, method: str, target: str, headers: dict[str, str], body: bytes | None = None
    ) -> Response:
        """Return the response to a request.

        Args:
            method: the method.
            target: the path below the base URL, and the query.
            headers: the headers.
            body: the body.

        Raises:
            LostConnectionError: the connection ended without an answer.
            RemoteError: the server cannot be reached, its certificate is not trusted, or its
                response is too large.
        """
        with closing(self._connect()) as connection:
            try:
                connection.request(
                    method, f"{self._place.path}{target}", body, {**headers, "Connection": "close"}
                )
                answer = connection.getresponse()
                content = answer.read(MAXIMUM_BODY_BYTES + 1)
            except (OSError, HTTPException) as error:
                raise LostConnectionError(f"{self.url} did not answer: {_text(error)}.") from error
        if len(content) > MAXIMUM_BODY_BYTES:
            raise RemoteError(f"The answer of {self.url} is too large.")
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Response(answer.status, headers, content)

    def _connect(self) -> HTTPConnection:
        try:
            with ExitStack() as stack:
                connection = stack.enter_context(closing(self._open()))
                connection.connect()
                stack.pop_all()
                return connection
        except ssl.SSLCertVerificationError as error:
            raise RemoteError(
                f"The certificate of {self.url} is not trusted: {error.verify_message}."
                " --ca-file names the certificates to trust."
            ) from error
        except (OSError, HTTPException, UnicodeError) as error:
            raise RemoteError(f"{self.url} cannot be reached: {_text(error)}.") from error

    def _open(self) -> HTTPConnection:
        host, port = self._place.host, self._place.port
        if self._context is None:
            return HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
        return HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=self._context)


def _text(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).rstrip(".")
