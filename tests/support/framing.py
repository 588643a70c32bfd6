"""The body of a request framed in every way, sound and ambiguous (RFC 9112, 6 and 7.1)."""

CHUNKED = b"Transfer-Encoding: chunked\r\n"


def length(body: bytes) -> bytes:
    """Return the header that frames this body."""
    return b"Content-Length: %d\r\n" % len(body)


def chunks(body: bytes, *, first: bytes | None = None, end: bytes = b"\r\n") -> bytes:
    """Return the body as one chunk, with `first` for its size and `end` for line ends."""
    size = b"%x" % len(body) if first is None else first
    return size + end + body + end + b"0" + end + end


# Name: the framing headers, and the body that they come with. A server that takes one of these for
# a request reads it otherwise than some proxy in front of it does.
AMBIGUOUS = {
    "length-and-chunked": lambda body: (length(body) + CHUNKED, chunks(body)),
    "chunked-and-length": lambda body: (CHUNKED + length(body), chunks(body)),
    "length-ends-inside-chunked": lambda _: (
        b"Content-Length: 5\r\n" + CHUNKED,
        b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ),
    "two-lengths": lambda body: (length(body) + b"Content-Length: 3\r\n", body),
    "list-of-lengths": lambda body: (b"Content-Length: %d, %d\r\n" % (len(body), len(body)), body),
    "signed-length": lambda body: (b"Content-Length: +%d\r\n" % len(body), body),
    "negative-length": lambda body: (b"Content-Length: -%d\r\n" % len(body), body),
    "hexadecimal-length": lambda body: (b"Content-Length: 0x%x\r\n" % len(body), body),
    "underscore-in-length": lambda body: (b"Content-Length: 1_0\r\n", body),
    "length-beyond-64-bits": lambda body: (b"Content-Length: 99999999999999999999999\r\n", body),
    "empty-length": lambda body: (b"Content-Length: \r\n", body),
    "unknown-coding": lambda body: (b"Transfer-Encoding: xchunked\r\n", chunks(body)),
    "identity-coding": lambda body: (b"Transfer-Encoding: identity\r\n" + length(body), body),
    "chunked-not-last": lambda body: (b"Transfer-Encoding: chunked, identity\r\n", chunks(body)),
    "compressed-and-chunked": lambda body: (b"Transfer-Encoding: gzip, chunked\r\n", chunks(body)),
    "chunked-twice": lambda body: (CHUNKED + CHUNKED, chunks(body)),
    "chunked-and-another": lambda body: (CHUNKED + b"Transfer-Encoding: x\r\n", chunks(body)),
    "vertical-tab-before-chunked": lambda body: (
        b"Transfer-Encoding: \x0bchunked\r\n",
        chunks(body),
    ),
    "quoted-chunked": lambda body: (b'Transfer-Encoding: "chunked"\r\n', chunks(body)),
    "line-feed-in-chunk-extension": lambda body: (
        CHUNKED,
        chunks(body, first=b"%x;a\nb" % len(body)),
    ),
    "blank-before-chunk-extension": lambda body: (
        CHUNKED,
        chunks(body, first=b"%x ;a" % len(body)),
    ),
    "control-character-in-chunk-extension": lambda body: (
        CHUNKED,
        chunks(body, first=b"%x;a=\x00" % len(body)),
    ),
    "chunk-data-longer-than-its-size": lambda body: (CHUNKED, chunks(body, first=b"1")),
    "chunk-without-size": lambda body: (CHUNKED, chunks(body, first=b"")),
    "chunk-size-beyond-64-bits": lambda body: (
        CHUNKED,
        chunks(body, first=b"fffffffffffffffff%x" % len(body)),
    ),
    "chunk-size-wraps-around": lambda body: (
        CHUNKED,
        chunks(body, first=b"100000000000000%02x" % len(body)),
    ),
    "negative-chunk-size": lambda body: (CHUNKED, chunks(body, first=b"-%x" % len(body))),
    "prefixed-chunk-size": lambda body: (CHUNKED, chunks(body, first=b"0x%x" % len(body))),
    "chunks-with-bare-line-feeds": lambda body: (CHUNKED, chunks(body, end=b"\n")),
    "trailer-section": lambda body: (
        CHUNKED,
        chunks(body).removesuffix(b"\r\n") + b"Content-Length: 3\r\n\r\n",
    ),
    "folded-header": lambda body: (length(body) + b"X-A: a\r\n b\r\n", body),
    "folded-coding": lambda body: (b"Transfer-Encoding:\r\n chunked\r\n", chunks(body)),
    "bare-carriage-return": lambda body: (b"X-A: b\rContent-Length: 3\r\n" + length(body), body),
    "nul-in-value": lambda body: (b"X-A: a\x00b\r\n" + length(body), body),
    "nul-in-name": lambda body: (b"X\x00A: b\r\n" + length(body), body),
    "control-character": lambda body: (b"X-A: a\x01b\r\n" + length(body), body),
    "blank-before-colon": lambda body: (b"X-A : b\r\n" + length(body), body),
    "blank-before-colon-of-length": lambda body: (b"Content-Length : %d\r\n" % len(body), body),
    "blank-before-colon-of-coding": lambda body: (
        b"Transfer-Encoding : chunked\r\n" + length(body),
        body,
    ),
}


# Name: the same, which every server has to take for one request.
SOUND = {
    "length": lambda body: (length(body), body),
    "length-with-leading-zeros": lambda body: (b"Content-Length: 000%d\r\n" % len(body), body),
    "blanks-around-length": lambda body: (b"Content-Length:  %d  \r\n" % len(body), body),
    "chunked": lambda body: (CHUNKED, chunks(body)),
    "blanks-around-chunked": lambda body: (b"Transfer-Encoding:  chunked  \r\n", chunks(body)),
    "chunked-in-upper-case": lambda body: (b"TRANSFER-ENCODING: CHUNKED\r\n", chunks(body)),
    "chunk-extension": lambda body: (CHUNKED, chunks(body, first=b"%x;a=b" % len(body))),
    "chunk-extensions": lambda body: (
        CHUNKED,
        chunks(body, first=b'%x;a;b=c;d="e f;\\" g"' % len(body)),
    ),
    "chunk-size-in-upper-case": lambda body: (CHUNKED, chunks(body, first=b"%X" % len(body))),
    "chunk-size-with-leading-zeros": lambda body: (
        CHUNKED,
        chunks(body, first=b"0000%x" % len(body)),
    ),
    "a-chunk-for-each-byte": lambda body: (
        CHUNKED,
        b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n",
    ),
    "trailers": lambda body: (
        CHUNKED,
        chunks(body).removesuffix(b"\r\n") + b"X-Sum: 1\r\nAuthorization: Basic eDp5\r\n\r\n",
    ),
}

#: Header fields that wish for another protocol, by its name.
UPGRADES = {
    # As Java's HttpClient sends the first request of each connection.
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
    b"Upgrade: h2c\r\nUser-Agent: Java-http-client/21\r\n",
    "websocket": b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n",
    "tls": b"Upgrade: TLS/1.2, HTTP/1.1\r\nConnection: Upgrade\r\n",
}
