"""A broker that speaks as much of Kafka's protocol as a client needs to present its token."""

import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

_HANDSHAKE, _API_VERSIONS, _AUTHENTICATE = 17, 18, 36
_UNSUPPORTED_VERSION = 35
#: Key, lowest and highest version of what the broker understands.
_VERSIONS = ((_HANDSHAKE, 1, 1), (_API_VERSIONS, 0, 0), (_AUTHENTICATE, 0, 0))
_MECHANISM = b"OAUTHBEARER"


class Broker(socketserver.ThreadingTCPServer):
    """Accepts every token; `presented` holds what clients sent (RFC 7628, 3.1)."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        self.presented: SimpleQueue[str] = SimpleQueue()
        super().__init__(("127.0.0.1", 0), _Connection)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self.server_address[1]


class _Connection(socketserver.StreamRequestHandler):
    server: Broker

    def handle(self) -> None:
        while size := self.rfile.read(4):
            request = self.rfile.read(struct.unpack(">i", size)[0])
            kind, version, correlation, length = struct.unpack_from(">hhih", request)
            body = request[10 + max(length, 0) :]
            answer = self._answer(kind, version, body)
            if answer is None:
                return
            self.wfile.write(struct.pack(">ii", len(answer) + 4, correlation) + answer)

    def _answer(self, kind: int, version: int, body: bytes) -> bytes | None:
        """Return the response to one request; None ends the connection."""
        if kind == _API_VERSIONS:
            error = _UNSUPPORTED_VERSION if version else 0
            listed = b"".join(struct.pack(">hhh", *each) for each in _VERSIONS)
            return struct.pack(">hi", error, len(_VERSIONS)) + listed
        if kind == _HANDSHAKE:
            return struct.pack(">hih", 0, 1, len(_MECHANISM)) + _MECHANISM
        if kind == _AUTHENTICATE:
            self.server.presented.put(body[4:].decode())
            return struct.pack(">hhi", 0, -1, 0)
        return None


@contextmanager
def running_broker() -> Iterator[Broker]:
    """Yield a broker on loopback."""
    with Broker() as broker:
        thread = threading.Thread(target=broker.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield broker
        broker.shutdown()
        thread.join()
