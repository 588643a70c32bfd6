"""The same request by `serve`'s own way and by WSGI: the answers must not differ.

`serve` reads bytes from a connection and runs coroutines on an event loop; every other server hands
a WSGI application an environment. A twin of the application under test, on the same database, gets
what the WSGI application gets, as bytes over a connection in memory.
"""

import asyncio
import base64
import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from authz_server.app import EXTENSION, Application, create_app
from authz_server.assembly import Services
from authz_server.serving.http import Connection
from authz_server.serving.messages import MAXIMUM_HEADER_BYTES
from authz_server.serving.worker import build_front, new_loop
from authz_server.settings import Settings
from support.wsgi import RawAnswer

_ANSWER_SECONDS = 30.0
_TOO_LARGE = 413
# Not the same twice, or each server's own.
_DISTINCT_HEADERS = {"connection", "content-length", "date", "x-request-id"}
# What makes a message that any server hands on as it is.
# An invented method is malformed to the parser of `serve`; CONNECT asks for a tunnel.
_METHODS = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
_TARGET = re.compile(r"/[!-~]*")
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?")
_NAME = re.compile(r"[A-Za-z0-9-]+")
_VALUE = re.compile(r"(?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?")
#: What a server in front of a WSGI application reads for itself.
_FOR_THE_SERVER = {"CONNECTION", "EXPECT", "TE", "TRAILER", "TRANSFER_ENCODING", "UPGRADE"}
_JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")
_RANDOM_CLAIMS = {"jti"}
_JWE = re.compile(r"eyJ[\w-]+\.[\w-]*\.[\w-]+\.[\w-]+\.[\w-]+")


class MemoryTransport(asyncio.Transport):
    """One end of a connection in memory; what is written is kept."""

    def __init__(self, peer: str) -> None:
        super().__init__({"peername": (peer, 1)})
        self.written = b""
        self.wrote = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep what is written."""
        self.written += bytes(data)
        self.wrote.set()

    def is_closing(self) -> bool:
        """Stay open."""
        return False

    def can_write_eof(self) -> bool:
        """Have nothing to half-close."""
        return False

    def close(self) -> None:
        """Do nothing: what was written stays."""

    def abort(self) -> None:
        """Do nothing, likewise."""

    def pause_reading(self) -> None:
        """Do nothing: one request comes at a time."""

    def resume_reading(self) -> None:
        """Do nothing, likewise."""


class ServeTwin:
    """The application as a worker of `serve` runs it. A context manager.

    Args:
        settings: of the application that it is the twin of; its audit trail goes elsewhere.
        clock: the same one.
        directory: for its audit trail.
    """

    def __init__(self, settings: Settings, clock: Any, directory: Path) -> None:
        audit = msgspec.structs.replace(settings.audit, destination=str(directory / "twin.jsonl"))
        self._settings = msgspec.structs.replace(settings, audit=audit)
        self._clock = clock
        self._lock = threading.Lock()
        self.compared = 0

    def __enter__(self) -> Self:
        self._loop = new_loop()
        self._app: Application = create_app(self._settings, clock=self._clock)
        self._services: Services = self._app.extensions[EXTENSION]
        self._front, self._lanes = build_front(
            self._loop, self._app, self._services, self._settings.server
        )
        self._refresh()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._lanes.close())
        self._loop.close()
        self._services.maintenance.stop()
        self._services.database.close()
        self._services.sink.close()

    def compare(self, environ: Mapping[str, Any], body: bytes, answer: RawAnswer) -> None:
        """Raise AssertionError unless the twin answers a WSGI request as it was answered."""
        message = message_of(environ, body)
        # A body that no endpoint reads is not looked at under WSGI, however long.
        long = len(body) > self._settings.server.maximum_body_bytes
        if message is None or (long and answer.status != _TOO_LARGE):
            return
        peer, head = environ.get("REMOTE_ADDR", ""), environ["REQUEST_METHOD"] == "HEAD"
        expected = facts(answer)
        with self._lock:
            found = facts(self.ask(message, peer, head=head))
            if found != expected:
                # It may not have read yet what was changed meanwhile.
                self._refresh()
                found = facts(self.ask(message, peer, head=head))
            self.compared += 1
        assert found == expected, f"serve answers {found}\nWSGI was answered {expected}"

    def _refresh(self) -> None:
        self._services.feed.poll()
        self._services.key_rings.refresh()

    def ask(self, message: bytes, peer: str = "127.0.0.1", *, head: bool = False) -> RawAnswer:
        """Send the bytes of one message; return the answer."""
        written = self._loop.run_until_complete(self._exchange(message, peer))
        lines, _, body = written.partition(b"\r\n\r\n")
        status_line, *fields = lines.decode("latin-1").split("\r\n")
        pairs = (field.split(": ", 1) for field in fields)
        headers = {name.lower(): value for name, value in pairs}
        assert head or len(body) == int(headers.get("content-length", 0))
        return RawAnswer(int(status_line[9:12]), headers, body)

    async def _exchange(self, message: bytes, peer: str) -> bytes:
        connection, transport = Connection(self._front), MemoryTransport(peer)
        connection.connection_made(transport)
        try:
            connection.data_received(message)
            await asyncio.wait_for(transport.wrote.wait(), _ANSWER_SECONDS)
        finally:
            connection.connection_lost(None)
        return transport.written


def message_of(environ: Mapping[str, Any], body: bytes) -> bytes | None:
    """Return the HTTP message of a WSGI request; None where it is not a sound one."""
    target = environ.get("REQUEST_URI") or environ.get("PATH_INFO", "")
    if "?" not in target and environ.get("QUERY_STRING"):
        target += f"?{environ['QUERY_STRING']}"
    fields = {
        name[5:].replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    length = environ.get("CONTENT_LENGTH") or ""
    if environ.get("CONTENT_TYPE"):
        fields["CONTENT-TYPE"] = environ["CONTENT_TYPE"]
    if length:
        fields["CONTENT-LENGTH"] = length
    sound = (
        environ["REQUEST_METHOD"] in _METHODS
        and _TARGET.fullmatch(target)
        and "#" not in target
        and _HOST.fullmatch(fields.get("HOST", ""))
        and length == (str(len(body)) if body or length else "")
        and not any(f"HTTP_{name}" in environ for name in _FOR_THE_SERVER)
        and all(_NAME.fullmatch(name) and _VALUE.fullmatch(fields[name]) for name in fields)
    )
    lines = [f"{environ['REQUEST_METHOD']} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    head = "".join(f"{line}\r\n" for line in lines)
    if not sound or len(head) > MAXIMUM_HEADER_BYTES:
        return None
    return head.encode("latin-1") + b"\r\n" + body


def facts(answer: RawAnswer) -> tuple[int, dict[str, str], object]:
    """Return what must not differ: all but what is random or each server's own."""
    headers = {
        name: value for name, value in answer.headers.items() if name not in _DISTINCT_HEADERS
    }
    text = _JWT.sub(_claims, _JWE.sub(_header, answer.body.decode("latin-1")))
    try:
        body = json.loads(text)
    except ValueError:
        return answer.status, headers, text
    if isinstance(body, dict) and "." not in str(body.get("access_token", ".")):
        # A reference: random characters.
        body["access_token"] = len(body["access_token"])
    return answer.status, headers, body


def _claims(token: "re.Match[str]") -> str:
    """Return header and claims of a token without those that are random."""
    header, claims, signature = token.group().split(".")
    shown = [_decoded(header), _decoded(claims), len(signature)]
    return json.dumps(shown, sort_keys=True).replace('"', "'") + "."


def _header(token: "re.Match[str]") -> str:
    """Return the header of an encrypted token without its random key, and the length."""
    shown = _decoded(token.group().partition(".")[0])
    shown.pop("epk", None)
    return f"{sorted(shown.items())} {len(token.group())}"


def _decoded(part: str) -> dict[str, object]:
    decoded = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return {name: value for name, value in decoded.items() if name not in _RANDOM_CLAIMS}
