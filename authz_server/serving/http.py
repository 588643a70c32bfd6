"""HTTP/1.1 on one connection: strict framing, deadlines, one request after the other.

llhttp, the parser of Node.js, parses the messages in its strict mode. It refuses ambiguous
messages: a length beside chunks, several lengths, bare line feeds, folded fields, broken chunks.
This module checks the rest: sizes, hosts, transfer codings, repeated fields, expectations.
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
    ChunkEvents,
    Message,
    check_head,
    is_one_request,
    read_fields,
    read_framing,
    read_target,
)
from authz_server.serving.senders import Phase, Sender

#: How long a refused message is still read, so that a sender that is writing gets the response.
LINGER_SECONDS = 2.0
#: Bytes parsed before the messages in them are answered: one read may have thousands.
_PIECE_BYTES = 16_384
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_ARRIVING = frozenset({Phase.HEADER, Phase.BODY})
_CONNECTION = ("close", "keep-alive")

logger = logging.getLogger(__name__)


class Connection(ChunkEvents, asyncio.Protocol):
    """One connection.

    Args:
        front: the worker.

    Attributes:
        phase: the phase of the connection.
        deadline: the loop's time at which it is closed.
        used: whether a request on it was handled.
        peer: the peer's IP address.
        sender: the sender that the limits count it for.
    """

    sender: Sender
    transport: asyncio.Transport

    def __init__(self, front: Front) -> None:
        self._front = front
        self.phase = Phase.IDLE
        self.peer, self.deadline = "", 0.0
        self._parsed = self._answered = Message()
        self.used = self._open = self._half_closed = self._paused = self._unread = False
        self._received = self._chunk = self._uncounted = 0
        self._held = b""
        self._more = False
        self._queue: deque[Message] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to read."""
        self.transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        self.peer = address[0] if address else ""
        tls = transport.get_extra_info("ssl_object")
        # None where the listener asks for no certificate.
        self._certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        self.deadline = self._front.now + self._front.header_seconds
        self._parser = HttpRequestParser(self)
        self.sender = self._front.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop all state of the connection."""
        del exc
        self.phase = Phase.CLOSING
        self._queue.clear()
        self._held = b""
        self._front.closed(self)

    def pause_writing(self) -> None:
        """Stop reading from a peer that does not read its responses."""
        self._unread = True
        self.deadline = self._front.now + self._front.body_seconds
        self._pause()

    def resume_writing(self) -> None:
        """Continue with received messages, or resume reading."""
        self._unread = False
        if self.phase is Phase.IDLE:
            self._continue()
        elif self.phase in _ARRIVING:
            self._resume()

    def eof_received(self) -> bool:
        """Close the connection once all received messages are answered."""
        self._half_closed = True
        if self.phase is Phase.CLOSING or not self.transport.can_write_eof():
            return False
        self._close_at_end_of_input()
        return self.phase is Phase.ANSWERING or bool(self._queue or self._held)

    def _close_at_end_of_input(self) -> None:
        if self.phase in _ARRIVING:
            self._refuse(OAuthError("message_malformed", "the message ended early"))
        else:
            self.drain()

    def evict(self) -> None:
        """Close at once, to make room or after a deadline."""
        self.phase = Phase.CLOSING
        self._front.closed(self)
        self.transport.abort()

    def expire(self) -> None:
        """Close after a deadline; respond first if a message has started."""
        if self.phase in _ARRIVING and not self._unread:
            self._refuse(OAuthError("request_timeout"))
        elif self.phase is not Phase.ANSWERING:
            self.evict()

    def drain(self) -> None:
        """Close unless a message or a response is in progress."""
        if self.phase is Phase.IDLE and not (self._queue or self._held):
            self._close()

    def data_received(self, data: bytes) -> None:
        """Process the next bytes of one or more messages."""
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
        self._parse(data)

    def release(self) -> None:
        """Parse the held bytes."""
        data, self._held = self._held, b""
        self.phase = Phase.IDLE
        # The end, of input or of the worker, comes after the held bytes.
        self._more = self._half_closed or (self._front.draining and not is_one_request(data))
        self._parse(data)
        self._more = False
        # Otherwise reading goes on once nothing waits.
        if self.phase is not Phase.ANSWERING and not self._unread:
            self._resume()
        if self._half_closed:
            self._close_at_end_of_input()

    def refuse_held(self, refusal: Callable[[], bytes]) -> bool:
        """Refuse the held bytes unparsed if they are exactly one request."""
        last = self._half_closed or self._front.draining
        if last or not (self._answered.is_repeated_by(self._held) or is_one_request(self._held)):
            return False
        self._held = b""
        self.used = True
        self.transport.write(refusal())
        self._continue()
        return True

    def _parse(self, data: bytes) -> None:
        last = self._answered
        begins = not (self._open or self._received)
        if last.is_repeated_by(data) and begins and not self._queue and self.phase is Phase.IDLE:
            self._answer(last, last.repeat(data))
            return
        for start in range(0, len(data), _PIECE_BYTES):
            if self.phase is Phase.CLOSING:
                return
            if self._queue:
                self._held = data[start:]
                self._pause()
                break
            self._chunk = min(_PIECE_BYTES, len(data) - start)
            self._received += self._chunk
            self._feed(data[start : start + _PIECE_BYTES])
        if begins and not (self._open or self._received):
            self._parsed.remember(data)
        if self.phase is Phase.IDLE and self._queue:
            self._pause()
            self._continue()
        elif self._open and (self.phase is Phase.IDLE or self.phase in _ARRIVING):
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
                    break
            self._parsed.check_chunk(bytes(data))
        except HttpParserCallbackError:
            logger.exception("unhandled exception while handling a message")
            self._refuse(OAuthError("server_error"))
        except HttpParserError:
            self._refuse(OAuthError("message_malformed"))

    def _ignore_upgrade(self) -> bool:
        """Parse the header again without its ``Upgrade`` field (RFC 9110, 7.8).

        Otherwise the body would be taken for the next message. Return whether to continue.
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
        """Limit duration and size of the rest of a message that has started."""
        front, message = self._front, self._parsed
        if message.request is None:
            if self.phase is not Phase.HEADER:
                self.phase = Phase.HEADER
                self.deadline = front.now + front.header_seconds
        elif self.phase is not Phase.BODY:
            self.phase = Phase.BODY
            self.deadline = front.now + front.body_seconds
            front.body_begun(self)
            # Once, and after the responses to earlier messages.
            if message.waits and message.fault is None:
                self.transport.write(_CONTINUE)
        fault = message.fault or message.find_excess(self._received)
        if fault is not None:
            self._refuse(fault)

    def on_message_begin(self) -> None:
        """Start a message."""
        self._parsed, self._open = Message(), True
        # It begins in a piece that another message ends in.
        self._uncounted = 0 if self._received else self._chunk

    def on_url(self, url: bytes) -> None:
        """Append a part of the request target."""
        self._parsed.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a field; trailer fields are ignored."""
        if self._parsed.request is None:
            self._parsed.fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Check the header; the body, if any, follows."""
        message, parser = self._parsed, self._parser
        message.keep_alive = parser.should_keep_alive()
        version = parser.get_http_version()
        message.old = version == "1.0"
        method = parser.get_method().decode("latin-1")
        request = Request(method, "", peer=self.peer, peer_certificate=self._certificate)
        try:
            check_head(message, request.method, version, self._received + self._uncounted)
            request.headers = headers = read_fields(message.fields)
            request.path, request.query = read_target(message, headers)
            message.maximum_bytes = self._front.body_limit(self, request)
            message.waits = read_framing(message, headers, message.maximum_bytes)
        except OAuthError as fault:
            message.fault = fault
            message.keep_alive = False
            request.path = request.path or message.path
        message.request = request

    def on_body(self, body: bytes) -> None:
        """Append a part of the body."""
        self._parsed.add_to_body(body)

    def on_message_complete(self) -> None:
        """Handle the request, or queue it behind earlier ones."""
        message = self._parsed
        request = message.request
        if request is None or self.phase is Phase.CLOSING or self._parser.should_upgrade():
            return
        self._open = False
        # A second message in the same data waits, so that other connections get their turn.
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

    def end_after_message(self) -> None:
        """Close the connection after the response to the message that is being parsed."""
        self._parsed.keep_alive = False

    def answer(self, answer: Answer) -> None:
        """Send the response to the current request, then continue with the next one."""
        if self.phase is not Phase.ANSWERING:
            return
        front, message = self._front, self._answered
        waits = self._queue or self._held or self._more
        last = not waits and (self._half_closed or front.draining)
        keep_alive = message.keep_alive and not last
        self.transport.write(
            answer.encode(
                front.date,
                connection="" if keep_alive and not message.old else _CONNECTION[keep_alive],
                head=message.is_head,
            )
        )
        message.forget_body()
        if keep_alive:
            self._continue()
        else:
            self._close()

    def _continue(self) -> None:
        """Continue with the next received message, or read more."""
        if (self._queue or self._held) and not self._unread:
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
        elif self.phase is Phase.ANSWERING and self._held:
            self.release()

    def _refuse(self, fault: OAuthError) -> None:
        """Respond to an incomplete message, and close."""
        if self.phase is Phase.CLOSING:
            return
        if self.phase is Phase.ANSWERING or self._queue:
            # Earlier messages are answered; nothing after them is read.
            (self._queue[-1] if self._queue else self._answered).keep_alive = False
            self._pause()
            return
        message = self._parsed
        message.keep_alive = False
        self.phase = Phase.ANSWERING
        self._answered = message
        request = message.request or Request("", message.path, peer=self.peer)
        self._front.refuse(self, request, fault)

    def _close(self) -> None:
        """Close; a sender that is still writing is read for a while, to get the response."""
        self.phase = Phase.CLOSING
        self._queue.clear()
        self._held = b""
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
