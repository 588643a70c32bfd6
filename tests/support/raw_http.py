"""An HTTP/1.1 client that sends exactly the bytes it is given, as no library would."""

import socket
import time
from dataclasses import dataclass, field
from typing import Self

_CHUNK_BYTES = 65_536
LAST_PATH = "/last-request-of-this-connection"
LAST_REQUEST = f"GET {LAST_PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


@dataclass(frozen=True)
class RawResponse:
    """One answer; header names are in lower case, repeated ones keep their last value."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class MalformedAnswerError(Exception):
    """What came back is no HTTP response; the message shows it."""


class RawConnection:
    """A TCP connection to a server on loopback. Every wait ends after `deadline_seconds`.

    `source` is the address that it comes from, any of 127.0.0.0/8.
    """

    def __init__(self, port: int, deadline_seconds: float = 5.0, source: str = "127.0.0.1") -> None:
        self._socket = socket.create_connection(
            ("127.0.0.1", port), deadline_seconds, source_address=(source, 0)
        )
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._deadline_seconds = deadline_seconds
        self._received = b""
        self.closed_by_server = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send exactly these bytes; a server that has already hung up is no error."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self.closed_by_server = True

    def notice_end(self) -> None:
        """Set `closed_by_server` where the server has hung up already; keep what it sent."""
        while not self.closed_by_server and self._receive_more(time.monotonic()):
            pass

    def set_blocking(self, *, blocking: bool) -> None:
        """Have :meth:`send_some` wait for room, or raise BlockingIOError."""
        self._socket.setblocking(blocking)

    def send_some(self, data: bytes) -> int:
        """Send as much of these bytes as there is room for; return how many."""
        return self._socket.send(data)

    def finish_sending(self) -> None:
        """Tell the server that nothing more will come."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.closed_by_server = True

    def receive(self, *, to_head: bool = False) -> RawResponse | None:
        """Return the next response, None when the server hung up without one (or stayed silent)."""
        deadline = time.monotonic() + self._deadline_seconds
        while b"\r\n\r\n" not in self._received:
            if not self._receive_more(deadline):
                return self._none_left()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        status, headers = _parse_head(head)
        if status == 100:  # "continue" is no answer yet
            return self.receive(to_head=to_head)
        return RawResponse(status, headers, b"" if to_head else self._body(headers, deadline))

    def receive_interim(self) -> int | None:
        """Return the status of the next response, "continue" included; None where there is none."""
        deadline = time.monotonic() + self._deadline_seconds
        while b"\r\n\r\n" not in self._received:
            if not self._receive_more(deadline):
                return self._none_left()
        status, _ = _parse_head(self._received.partition(b"\r\n\r\n")[0])
        if status == 100:
            self._received = self._received.partition(b"\r\n\r\n")[2]
        return status

    def receive_all(self) -> list[RawResponse]:
        """Return all responses that come until the server hangs up or falls silent."""
        responses = []
        while response := self.receive():
            responses.append(response)
        return responses

    def _none_left(self) -> None:
        if self._received:
            raise MalformedAnswerError(repr(self._received[:500]))

    def _receive_more(self, deadline: float) -> bool:
        self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            data = self._socket.recv(_CHUNK_BYTES)
        except TimeoutError:
            return False
        except ConnectionResetError:
            data = b""
        self.closed_by_server = self.closed_by_server or not data
        self._received += data
        return bool(data)

    def _body(self, headers: dict[str, str], deadline: float) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            return self._chunked_body(deadline)
        return self._take(int(headers.get("content-length", "0")), deadline)

    def _chunked_body(self, deadline: float) -> bytes:
        body = b""
        while size := int(self._take_line(deadline).partition(b";")[0], 16):
            body += self._take(size, deadline)
            self._take_line(deadline)
        self._take_line(deadline)
        return body

    def _take(self, size: int, deadline: float) -> bytes:
        while len(self._received) < size:
            if not self._receive_more(deadline):
                raise MalformedAnswerError(f"the body ended early: {self._received[:500]!r}")
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    def _take_line(self, deadline: float) -> bytes:
        while b"\r\n" not in self._received:
            if not self._receive_more(deadline):
                raise MalformedAnswerError(f"a line ended early: {self._received[:500]!r}")
        line, _, self._received = self._received.partition(b"\r\n")
        return line


def exchange(port: int, data: bytes, deadline_seconds: float = 5.0) -> list[RawResponse]:
    """Send `data` on a connection of its own; return every response until the server hangs up.

    Sending goes on with one ordinary request that asks for the end of the connection, so nobody has
    to wait: a server that took `data` for one request answers twice, one that refused it and hung
    up answers once, one that was led to see two requests in it answers three times.
    """
    with RawConnection(port, deadline_seconds) as connection:
        connection.send(data + LAST_REQUEST)
        return connection.receive_all()


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    status_line, *lines = head.split(b"\r\n")
    version, _, rest = status_line.partition(b" ")
    if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
        raise MalformedAnswerError(repr(head[:500]))
    pairs = (line.decode("latin-1").partition(":") for line in lines)
    return int(rest[:3]), {name.strip().lower(): value.strip() for name, _, value in pairs}
