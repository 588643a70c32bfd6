"""A TCP server that answers as a test scripts it, for what no proper server does."""

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

#: An answer of a Vault that says nothing.
EMPTY = b'{"data": {}}'


class ScriptedServer:
    """A context manager; `answer(connection, request)` is called for each request that comes.

    `requests` holds what came, headers and body; `connections` counts them, `ended` those that
    this side has ended. A connection lives until `answer` returns False. With `tls`, it speaks TLS.
    """

    def __init__(
        self,
        answer: Callable[[socket.socket, bytes], bool | None],
        tls: ssl.SSLContext | None = None,
        port: int = 0,
    ) -> None:
        self._answer = answer
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", port))
        self._connections: list[socket.socket] = []
        self.requests: list[bytes] = []
        self.ended = 0
        self.port: int = self._listener.getsockname()[1]
        self.address = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    @property
    def connections(self) -> int:
        """How many connections came."""
        return len(self._connections)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), self._secured(connection) as secured:
            while request := _read_request(secured):
                self.requests.append(request)
                if self._answer(secured, request) is False:
                    break
        self.ended += 1

    def _secured(self, connection: socket.socket) -> socket.socket:
        if self._tls is None:
            return connection
        try:
            return self._tls.wrap_socket(connection, server_side=True)
        except OSError:
            connection.close()
            raise


def answer_with(
    body: bytes, status: int = 200, kind: str = "application/json", extra: str = ""
) -> Callable[[socket.socket, bytes], None]:
    """Return a script that gives one answer to everything."""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}"

    def answer(connection: socket.socket, _: bytes) -> None:
        connection.sendall(head.encode() + b"\r\n" + body)

    return answer


def _read_request(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(65_536)
        if not part:
            return b""
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        part = connection.recv(65_536)
        if not part:
            return b""
        body += part
    return head + b"\r\n\r\n" + body
