"""HTTP/1.1 on one connection: strict framing, deadlines, one request after the other.

The messages are taken apart by llhttp, the parser of Node.js, in its strict mode. It refuses what
can be read in two ways: a length beside chunks, several lengths, bare line feeds, folded fields,
broken chunks. What it leaves to its caller is checked here: sizes, hosts, transfer codings,
repeated fields, expectations.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import cast

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from authz_server.endpoints.request import Request
from authz_server.endpoints.responses import Answer
from authz_server.errors import OAuthError
from authz_server.serving.interface import Front
from authz_server.serving.messages import (
    MAXIMUM_HEADER_BYTES,
    Message,
    check_head,
    is_one_request,
    read_fields,
    read_framing,
    read_target,
)
from authz_server.serving.senders import Phase, Sender

#: What chunks may take beside the body that they carry: sizes, extensions and trailers.
_CHUNK_OVERHEAD = 8
#: How long a refused message is still read, so that the answer reaches a sender that is writing.
LINGER_SECONDS = 2.0
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_ARRIVING = frozenset({Phase.HEADER, Phase.BODY})
_CONNECTION = ("close", "keep-alive")

logger = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    """One connection.

    Args:
        front: the worker.

    Attributes:
        phase: what it is doing.
        deadline: when it is closed unless something happens, in the loop's time.
        used: whether a request on it was handed on.
        peer: the IP address at its other end.
        sender: whose connections the limits count it among.
    """

    sender: Sender
    transport: asyncio.Transport

    def __init__(self, front: Front) -> None:
        self._front = front
        self.phase = Phase.IDLE
        self.deadline = 0.0
        self.peer = ""
        self._parsed = self._answered = Message()
        self.used = self._open = self._half_closed = self._paused = self._unread = False
        self._received = self._chunk = 0
        self._held = b""
        self._queue: deque[Message] = deque()

    # ------------------------------------------------------------------------ the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read."""
        self.transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        self.peer = address[0] if address else ""
        self.deadline = self._front.now + self._front.header_seconds
        self._parser = HttpRequestParser(self)
        self.sender = self._front.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything."""
        del exc
        self.phase = Phase.CLOSING
        self._queue.clear()
        self._front.closed(self)

    def pause_writing(self) -> None:
        """Read nothing more from a peer that does not read its answers."""
        self._unread = True
        self.deadline = self._front.now + self._front.body_seconds
        self._pause()

    def resume_writing(self) -> None:
        """Go on with what was received, or read again."""
        self._unread = False
        if self.phase is Phase.IDLE:
            self._go_on()
        elif self.phase in _ARRIVING:
            self._resume()

    def eof_received(self) -> bool:
        """Close, but not before what was received is answered."""
        self._half_closed = True
        if self.phase is Phase.CLOSING or not self.transport.can_write_eof():
            return False
        self._end_early()
        return self.phase is Phase.ANSWERING

    def _end_early(self) -> None:
        if self.phase in _ARRIVING:
            self._refuse(OAuthError("message_malformed", "the message ended early"))
        elif self.phase is Phase.IDLE:
            self._end()

    def evict(self) -> None:
        """Close at once, to make room or because a deadline has passed."""
        self.phase = Phase.CLOSING
        self._front.closed(self)
        self.transport.abort()

    def expire(self) -> None:
        """Close because the deadline has passed; answer a sender whose message has begun."""
        if self.phase in _ARRIVING and not self._unread:
            self._refuse(OAuthError("request_timeout"))
        elif self.phase is not Phase.ANSWERING:
            self.evict()

    def drain(self) -> None:
        """Close unless a message or an answer is under way."""
        if self.phase is Phase.IDLE and not self._queue:
            self._end()

    def data_received(self, data: bytes) -> None:
        """Take the next bytes of one or more messages."""
        if self.phase is Phase.CLOSING:
            return
        if self.phase is Phase.ANSWERING:
            self._pause()
            if self._held:
                self._held += data
                return
        elif self.phase is Phase.IDLE and not self._open and self._front.holds(self):
            self.phase = Phase.ANSWERING
            self._held = data
            return
        self._take(data)

    def release(self) -> None:
        """Take the bytes apart that were held."""
        data, self._held = self._held, b""
        # The end of what the peer sends comes after them.
        ended, self._half_closed = self._half_closed, False
        self.phase = Phase.IDLE
        self._resume()
        self._take(data)
        self._half_closed = ended
        if ended:
            self._end_early()

    def refuse_held(self, refusal: Callable[[], bytes]) -> bool:
        """Answer the bytes that were held, if they are one request and no more."""
        last = self._half_closed or self._front.draining
        if last or not is_one_request(self._held):
            return False
        self._held = b""
        self.used = True
        self.transport.write(refusal())
        self._go_on()
        return True

    def _take(self, data: bytes) -> None:
        self._chunk = len(data)
        self._received += self._chunk
        self._feed(data)
        if self.phase is Phase.IDLE:
            if self._queue:
                self._pause()
                self._go_on()
            elif self._open:
                self._await_rest()
        elif self._open and self.phase in _ARRIVING:
            self._await_rest()

    def _feed(self, data: bytes | memoryview) -> None:
        try:
            while True:
                try:
                    self._parser.feed_data(data)
                except HttpParserUpgrade as upgrade:
                    data = memoryview(data)[int(upgrade.args[0]) :]
                    if not self._ignore_upgrade():
                        return
                else:
                    return
        except HttpParserCallbackError:
            logger.exception("a message could not be handled")
            self._refuse(OAuthError("server_error"))
        except HttpParserError:
            self._refuse(OAuthError("message_malformed"))

    def _ignore_upgrade(self) -> bool:
        """Read the header again without its wish for another protocol (RFC 9110, 7.8).

        Else its body would be the next message. Return whether what follows is read.
        """
        message = self._parsed
        if message.fault is not None:
            self._refuse(message.fault)
        if message.fault is not None or self.phase is Phase.CLOSING:
            return False
        self._parser = HttpRequestParser(self)
        self._parser.feed_data(message.without_upgrade())
        return True

    def _await_rest(self) -> None:
        """Limit how long and how large the rest of a message that has begun may be."""
        front, message = self._front, self._parsed
        if message.request is None:
            if self.phase is not Phase.HEADER:
                self.phase = Phase.HEADER
                self.deadline = front.now + front.header_seconds
            if self._received > MAXIMUM_HEADER_BYTES:
                self._refuse(OAuthError("header_too_large"))
            return
        if self.phase is not Phase.BODY:
            self.phase = Phase.BODY
            self.deadline = front.now + front.body_seconds
            front.body_begun(self)
        if message.fault is not None:
            self._refuse(message.fault)
        elif self._received > MAXIMUM_HEADER_BYTES + _CHUNK_OVERHEAD * front.maximum_body_bytes:
            self._refuse(OAuthError("body_too_large"))

    # --------------------------------------------------------------------------- the parser

    def on_message_begin(self) -> None:
        """Begin a message."""
        self._parsed = Message()
        self._open = True

    def on_url(self, url: bytes) -> None:
        """Take a part of the request target."""
        self._parsed.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field; those after the body, its trailers, are ignored."""
        if self._parsed.request is None:
            self._parsed.fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Check the header; the body follows, if there is one."""
        message, parser = self._parsed, self._parser
        message.keep_alive = parser.should_keep_alive()
        version = parser.get_http_version()
        message.old = version == "1.0"
        request = Request(parser.get_method().decode("latin-1"), "", peer=self.peer)
        try:
            check_head(message, request.method, version, self._received + self._chunk)
            request.headers = headers = read_fields(message.fields)
            request.path, request.query = read_target(message, headers)
            waits = read_framing(message, headers, self._front.maximum_body_bytes)
            if waits and self.phase is not Phase.ANSWERING:
                self.transport.write(_CONTINUE)
        except OAuthError as fault:
            message.fault = fault
            message.keep_alive = False
            # The endpoint that it was for refuses it, in its own form.
            request.path = request.path or message.target.partition(b"?")[0].decode("latin-1")
        message.request = request

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        message = self._parsed
        message.body_bytes += len(body)
        if message.fault is None and message.body_bytes > self._front.maximum_body_bytes:
            message.fault = OAuthError("body_too_large")
            message.keep_alive = False
        if message.fault is None:
            message.body.append(body)

    def on_message_complete(self) -> None:
        """Hand the request on, or have it wait for those before it."""
        message = self._parsed
        request = message.request
        if request is None or self.phase is Phase.CLOSING or self._parser.should_upgrade():
            return
        self._open = False
        # A second message in one piece of data comes later: others have their turn before it.
        waits = self.phase is Phase.ANSWERING or not self._received
        self._received = 0
        body = message.body
        request.body = body[0] if len(body) == 1 else b"".join(body)
        request.fault = message.fault
        if waits:
            self._queue.append(message)
        else:
            self._answer(message, request)

    def _answer(self, message: Message, request: Request) -> None:
        self.phase = Phase.ANSWERING
        self.used = True
        self._answered = message
        self._front.handle(self, request)

    # --------------------------------------------------------------------------- answering

    def answer(self, answer: Answer) -> None:
        """Send the answer to the request under way, then go on with the next."""
        if self.phase is not Phase.ANSWERING:
            return
        front, message = self._front, self._answered
        last = not self._queue and (self._half_closed or front.draining)
        keep_alive = message.keep_alive and not last
        request = message.request
        self.transport.write(
            answer.encode(
                front.date,
                connection="" if keep_alive and not message.old else _CONNECTION[keep_alive],
                head=request is not None and request.method == "HEAD",
            )
        )
        if keep_alive:
            self._go_on()
        else:
            self._end()

    def _go_on(self) -> None:
        """Turn to the next message that was received, or read on."""
        if self._queue and not self._unread:
            self.phase = Phase.ANSWERING
            asyncio.get_running_loop().call_soon(self._next)
            return
        self.phase = Phase.IDLE
        if not self._unread:
            self.deadline = self._front.now + self._front.keep_alive_seconds
            self._resume()
            if self._open:
                self._await_rest()

    def _next(self) -> None:
        if self.phase is Phase.ANSWERING and self._queue:
            message = self._queue.popleft()
            self._answer(message, cast("Request", message.request))

    def _refuse(self, fault: OAuthError) -> None:
        """Answer a message that is not read to its end, and close."""
        if self.phase is Phase.CLOSING:
            return
        if self.phase is Phase.ANSWERING or self._queue:
            # Those before it are answered; nothing after them is read.
            (self._queue[-1] if self._queue else self._answered).keep_alive = False
            self._pause()
            return
        message = self._parsed
        message.keep_alive = False
        self.phase = Phase.ANSWERING
        self._answered = message
        self._front.refuse(self, message.request, fault)

    def _end(self) -> None:
        """Close. A sender that still writes is read for a while, or it would lose the answer."""
        self.phase = Phase.CLOSING
        self._queue.clear()
        lingers = not self._half_closed and (self._open or self._paused)
        self.deadline = self._front.now + (LINGER_SECONDS if lingers else self._front.body_seconds)
        if not lingers:
            self.transport.close()
        elif self.transport.can_write_eof():
            self.transport.write_eof()
        self._resume()

    def _pause(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()
