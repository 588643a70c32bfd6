"""The header of an HTTP message: fields, target and host."""

import re
from typing import cast

from authz_server.endpoints.request import Request
from authz_server.endpoints.wsgi import ABSOLUTE, MESSAGE_ID, is_host
from authz_server.errors import OAuthError

#: Request line and header fields together.
MAXIMUM_HEADER_BYTES = 8_192
MAXIMUM_FIELDS = 100
#: Allowed size of chunk sizes, extensions and trailers, as a multiple of the body.
_CHUNK_OVERHEAD = 8
_VERSIONS = frozenset({"1.0", "1.1"})
#: Fields that must not repeat. Other repeated fields form a list (RFC 9110, 5.3).
_SINGLE = frozenset(
    {
        "authorization",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "message_id",
        "timestamp",
        "transfer-encoding",
    }
)


#: How much of a line is kept until the rest arrives.
_LINE_BYTES = 256
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]+")
_LENGTH = b"\r\ncontent-length:"
_LENGTH_DIGITS = 9
#: With one of these, or with a bare line feed, only a parser can find the end of a message.
_NOT_PLAIN = (b"transfer-encoding", b"upgrade", b"expect", b"close", b"http/1.0")
#: Fields by which the parser frames or answers a message in its own way.
_UNREPEATABLE = frozenset({"expect", "transfer-encoding", "upgrade"})
#: A field whose value is new in each request: a JWT (RFC 9449, 4.1; RFC 7515, 3.1).
_PROOF_NAME = "dpop"
_PROOF = re.compile(rb"\r\ndpop:[ \t]*([-.\w]+)", re.IGNORECASE)
_PROOF_CHARACTERS = b"-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"


class Message:
    """A message that is being parsed."""

    __slots__ = (
        "body",
        "body_bytes",
        "chunk_start",
        "fault",
        "fields",
        "head",
        "is_chunked",
        "keep_alive",
        "line",
        "maximum_bytes",
        "old",
        "request",
        "rest",
        "rest_at",
        "size",
        "target",
        "waits",
    )

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.body: list[bytes] = []
        self.body_bytes = 0
        # The bytes before a chunk whose size was received and not checked.
        self.chunk_start: int | None = None
        self.is_chunked = False
        # The beginning of a line, of a chunk's size for example, that the next input goes on with.
        self.line = b""
        self.maximum_bytes = 0
        self.fault: OAuthError | None = None
        # Set once the header is complete.
        self.request: Request | None = None
        self.keep_alive = False
        self.old = False
        # Whether its sender expects 100 (Continue) before the body.
        self.waits = False
        # The encoded header, and the size of the message, if it can be repeated. A header with a
        # proof is in two parts, around the proof.
        self.head = self.rest = b""
        self.rest_at = self.size = 0

    @property
    def path(self) -> str:
        """The path as sent, as far as it has arrived; what renders a refusal depends on it."""
        return self.target.partition(b"?")[0].decode("latin-1")

    def add_to_body(self, part: bytes) -> None:
        """Add a part of the body, unless it is too large."""
        self.body_bytes += len(part)
        if self.fault is None and self.body_bytes > self.maximum_bytes:
            self.fault = OAuthError("body_too_large")
            self.keep_alive = False
        if self.fault is None:
            self.body.append(part)

    def check_chunk(self, data: bytes) -> None:
        """Refuse a chunk that is too large before it arrives; the parser does not report its size.

        Args:
            data: the parsed input, whose last byte belongs to the chunk.
        """
        if not self.is_chunked:
            return
        start, self.chunk_start = self.chunk_start, None
        if start is not None:
            head = self.line + data[: len(data) - (self.body_bytes - start)]
            self._check_size(start, head)
        _, found, line = data.rpartition(b"\n")
        self.line = line if found else self.line + line
        if len(self.line) > _LINE_BYTES:
            # What follows counts as an extension: at worst, the size seems smaller.
            self.line = self.line[:_LINE_BYTES] + b";"

    def _check_size(self, start: int, head: bytes) -> None:
        line = head.removesuffix(b"\r\n").rpartition(b"\n")[2]
        size = line.partition(b";")[0]
        if not head.endswith(b"\r\n") or not _CHUNK_SIZE.fullmatch(size):
            return
        if self.fault is None and start + int(size, 16) > self.maximum_bytes:
            self.fault = OAuthError("body_too_large")
            self.keep_alive = False

    def remember(self, data: bytes) -> None:
        """Keep the encoded header for :meth:`is_repeated_by`.

        Args:
            data: received input that begins with this message and has its end.
        """
        request = self.request
        if request is None or self.old or not self.keep_alive or self.fault is not None:
            return
        end = data.find(b"\r\n\r\n") + 4
        # Empty lines may stand before a message. Without them, the first one ends the header, and
        # the sizes are equal only where the message is all of the input.
        if not data.startswith(request.method.encode()) or end + self.body_bytes != len(data):
            return
        # The answer to HEAD has no body, which a refusal under overload has.
        if request.method != "HEAD" and _UNREPEATABLE.isdisjoint(request.headers):
            proof = _PROOF.search(data, 0, end) if _PROOF_NAME in request.headers else None
            # Of several proofs, the fields hold a list.
            whole = proof is not None and proof[1].decode() == request.headers[_PROOF_NAME]
            begin, self.rest_at = proof.span(1) if proof and whole else (end, end)
            self.head, self.rest = data[:begin], data[self.rest_at : end]
            self.size = len(data)
            self.body = []

    @property
    def is_head(self) -> bool:
        """Whether the answer has no body."""
        return self.request is not None and self.request.method == "HEAD"

    def forget_body(self) -> None:
        """Free the memory of the body; the next message may repeat the header."""
        self.body.clear()
        if self.request is not None:
            self.request.body = b""

    def is_repeated_by(self, data: bytes) -> bool:
        """Return whether ``data`` is one message: the same header, and a body of the same size.

        The proof in the header may be another one of the same size.
        """
        if len(data) != self.size or not data.startswith(self.head):
            return False
        return not self.rest or (
            data.startswith(self.rest, self.rest_at)
            and not self._proof_in(data).translate(None, _PROOF_CHARACTERS)
        )

    def _proof_in(self, data: bytes) -> bytes:
        return data[len(self.head) : self.rest_at]

    def repeat(self, data: bytes) -> Request:
        """Return the request of ``data``, which repeats this message with another body."""
        last = cast("Request", self.request)
        headers = last.headers
        if self.rest:
            headers = {**headers, _PROOF_NAME: self._proof_in(data).decode()}
        self.request = Request(
            last.method,
            last.path,
            last.query,
            headers,
            data[self.rest_at + len(self.rest) :],
            last.peer,
            last.peer_certificate,
        )
        return self.request

    def find_excess(self, received: int) -> OAuthError | None:
        """Return the refusal of an incomplete message of which too many bytes were received."""
        if self.request is None:
            return refuse_size(self) if received > MAXIMUM_HEADER_BYTES else None
        maximum = MAXIMUM_HEADER_BYTES + _CHUNK_OVERHEAD * self.maximum_bytes
        return OAuthError("body_too_large") if received > maximum else None

    def header_bytes(self) -> int:
        """Return the size of target and fields, with their line ends."""
        return len(self.target) + sum(len(name) + len(value) + 4 for name, value in self.fields)

    def without_upgrade(self) -> bytes:
        """Return the header without its ``Upgrade`` field."""
        method = self.request.method if self.request else ""
        version = b"1.0" if self.old else b"1.1"
        fields = [(name, value) for name, value in self.fields if name.lower() != b"upgrade"]
        lines = b"".join(b"%b: %b\r\n" % field for field in fields)
        return b"%b %b HTTP/%b\r\n%b\r\n" % (method.encode(), self.target, version, lines)


class ChunkEvents:
    """The reports of chunks by the parser of a connection."""

    _parsed: Message

    def on_chunk_header(self) -> None:
        """Note the start of a chunk."""
        self._parsed.chunk_start = self._parsed.body_bytes

    def on_chunk_complete(self) -> None:
        """Note the end of a chunk."""
        self._parsed.chunk_start = None


def is_one_request(data: bytes) -> bool:
    """Return whether ``data`` is exactly one request on a kept connection.

    Return False if only a parser could decide.
    """
    head, end, body = data.partition(b"\r\n\r\n")
    head = head.lower()
    # Under overload most requests end here; a regular expression takes five times as long.
    if not end or head.count(b"\n") != head.count(b"\r\n"):
        return False
    # Empty lines may stand before a message. The answer to HEAD has no body, as a refusal has.
    if not head or head.startswith((b"\r", b"head ")):
        return False
    for each in _NOT_PLAIN:
        if each in head:
            return False
    lengths = head.count(b"content-length")
    if lengths != 1:
        return not lengths and not body
    length = head.partition(_LENGTH)[2].partition(b"\r\n")[0].strip(b" \t")
    return length.isdigit() and len(length) <= _LENGTH_DIGITS and int(length) == len(body)


def refuse_size(message: Message) -> OAuthError:
    """Return the refusal of a header beyond its limits (RFC 9110, 15.5.15; RFC 6585, 5).

    Args:
        message: as far as it has arrived.
    """
    is_target = len(message.target) > MAXIMUM_HEADER_BYTES
    return OAuthError("target_too_long" if is_target else "header_too_large")


def check_head(message: Message, method: str, version: str, received: int) -> None:
    """Check a complete header.

    Args:
        message: with every field.
        method: the request method.
        version: the HTTP version.
        received: at least the number of bytes received of the message.

    Raises:
        OAuthError: ``message_malformed``, ``target_too_long`` or ``header_too_large``.
    """
    if version not in _VERSIONS or method == "CONNECT":
        raise OAuthError("message_malformed", "neither HTTP/1.1 nor 1.0, or a tunnel")
    long = received > MAXIMUM_HEADER_BYTES and message.header_bytes() > MAXIMUM_HEADER_BYTES
    if long or len(message.fields) > MAXIMUM_FIELDS:
        raise refuse_size(message)


def read_framing(message: Message, headers: dict[str, str], maximum_bytes: int) -> bool:
    """Check the framing of the body; return whether the sender expects 100 (Continue).

    Raises:
        OAuthError: ``message_malformed``, ``body_too_large`` or ``expectation_unknown``.
    """
    options = headers.get("connection", "").lower().split(",") if message.old else ()
    if "close" in map(str.strip, options):
        # RFC 9112, 9.3: also beside "keep-alive", which the parser prefers in HTTP/1.0.
        message.keep_alive = False
    coding = headers.get("transfer-encoding")
    if coding is not None and (message.old or coding.strip().lower() != "chunked"):
        raise OAuthError("message_malformed", "transfer coding")
    message.is_chunked = coding is not None
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise OAuthError("message_malformed", "content length")
    if length.startswith("0") and length != "0":
        # int() refuses thousands of digits, leading zeros included.
        headers["content-length"] = length = length.lstrip("0") or "0"
    if int(length) > maximum_bytes:
        raise OAuthError("body_too_large")
    expected = headers.get("expect")
    if expected is None or message.old:
        return False
    if expected.strip().lower() != "100-continue":
        raise OAuthError("expectation_unknown")
    return coding is not None or int(length) > 0


def read_fields(fields: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the fields by lower-case name; repeated fields are joined to a list.

    Raises:
        OAuthError: a field that must not repeat does.
    """
    headers: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name = _NAMES.get(raw_name) or _read_name(raw_name)
        # The parser removes the blanks before a value, and leaves those after it (RFC 9112, 5.1).
        value = raw_value.rstrip().decode("latin-1")
        if name in headers:
            if name in _SINGLE:
                raise OAuthError("message_malformed", "a repeated field")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    return headers


def read_target(message: Message, headers: dict[str, str]) -> tuple[str, str]:
    """Return path and query undecoded, and check the host (RFC 9112, 3.2).

    Raises:
        OAuthError: ``host_malformed``, ``message_malformed`` or ``not_found``.
    """
    target, host = message.target.decode("latin-1"), headers.get("host")
    # Only HTTP/1.1 requires a host.
    if not (is_host(host) if host is not None else message.old):
        raise OAuthError("host_malformed")
    if not target.startswith("/"):
        absolute = ABSOLUTE.fullmatch(target)
        if absolute is None:
            raise OAuthError("not_found" if target == "*" else "message_malformed")
        # RFC 9112, 3.2.2: the target's host counts, not the field's.
        headers["host"] = absolute[1]
        if not is_host(headers["host"]):
            raise OAuthError("host_malformed")
        target = absolute[2] or "/"
        if target.startswith("?"):
            target = f"/{target}"
    if "#" in target:
        raise OAuthError("message_malformed", "a fragment")
    path, _, query = target.partition("?")
    return path, query


#: Frequent names in their usual spellings; others are decoded each time.
_NAMES: dict[bytes, str] = {
    name.encode(): lower
    for lower in (
        "accept",
        "accept-encoding",
        "accept-language",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "date",
        "forwarded",
        "host",
        "message_id",
        "timestamp",
        "traceparent",
        "transfer-encoding",
        "user-agent",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-request-id",
    )
    for name in {lower, lower.title(), lower.capitalize()}
}


def _read_name(name: bytes) -> str:
    lower = name.decode("latin-1").lower()
    # Proxies that drop underscores need the name message-id.
    return MESSAGE_ID if lower == "message-id" else lower
