"""Logging for operators: one line per record, JSON or text, with tokens and secrets redacted.

A record is always one line: line breaks, escape sequences and Unicode separators are escaped.
Anything that looks like a credential is replaced.
"""

import logging
import re
import select
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

from authz_server.settings import LoggingSettings

#: Lowest permitted level of libraries. At lower levels, Authlib logs whole tokens, SQLAlchemy the
#: values of statements, and web servers the query string, which may hold a misplaced secret.
LIBRARY_LEVELS: Mapping[str, int] = {
    "alembic": logging.WARNING,
    "asyncio": logging.WARNING,
    "authlib": logging.WARNING,
    "hvac": logging.WARNING,
    "joserfc": logging.WARNING,
    "sqlalchemy": logging.WARNING,
    "urllib3": logging.WARNING,
    "werkzeug": logging.WARNING,
}
#: The access log: its lines are written at every level of the settings.
ACCESS_LOGGER = "authz_server.access"
#: Loggers with handlers of their own, which would not redact.
_WITH_OWN_HANDLERS = ("werkzeug",)
_STANDARD_ATTRIBUTES = frozenset(
    vars(logging.makeLogRecord({})) | {"asctime": None, "message": None, "taskName": None}
)
_BLOT = "[redacted]"
#: How long one record waits for a reader that is slow. The loop of a worker waits with it.
_STUCK_SECONDS = 0.1
_NAMES_OF_SECRETS = (
    "access_token|authorization|client_assertion|client_secret|key_encryption_key|password|pepper"
    "|private_key|refresh_token|secret|secret_pepper|token"
)
_NAME_OF_SECRET = re.compile(_NAMES_OF_SECRETS, re.IGNORECASE)
#: Words that stay: a sentence begins so after a name and a colon, as in "secret: it is empty". Each
#: stays only as a whole word, so that a record holds no other part of a secret.
_OPENINGS = "a|an|as|cannot|for|has|holds|is|it|leave|must|name|not|set|the|there|this|use"
#: What follows "DPoP" or "bearer" in a sentence.
_NOUNS = "grant|header|proof|token"
_PATTERNS = (
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*-----|\Z)", re.DOTALL),
        _BLOT,
    ),
    # Three or more segments of base64url: a JWS or a JWE. Possessive, to avoid quadratic time.
    (re.compile(r"(?<![\w-])e[wy][\w-]{6,}+\.[\w-]*+\.[\w.-]*+", re.ASCII), _BLOT),
    (re.compile(r"(?<![\w-])[\w-]{20,}+\.[\w-]{20,}+\.[\w.-]{20,}+", re.ASCII), _BLOT),
    (
        re.compile(
            rf"\b(bearer|basic|dpop)(\s+|%20|\+)(?!(?-i:{_NOUNS})(?:[ ,;:)]|\.?(?:\s|\Z)))"
            r"[A-Za-z0-9._~+/%=-]{4,}",
            re.IGNORECASE,
        ),
        rf"\1 {_BLOT}",
    ),
    (
        re.compile(
            rf"(?<![A-Za-z])({_NAMES_OF_SECRETS})(\\*[\"']?\s*(?:=|:|%3D)\s*)"
            rf"(?!\[redacted\]|(?<=: )(?-i:{_OPENINGS}) )"
            r"""\\*(?:b?"(?:[^"\\]|\\.)*"|b?'(?:[^'\\]|\\.)*'|["']?[^\s&"',;)\]}]+)""",
            re.IGNORECASE,
        ),
        rf"\1\2{_BLOT}",
    ),
    (
        re.compile(r"""(["'](?:d|p|q|dp|dq|qi|k)\\*["']\s*:\s*)\\*["'][\w=-]{16,}""", re.ASCII),
        rf"\1{_BLOT}",
    ),
    (re.compile(r"(://[^\s:/@]*):[^\s/@]+@"), rf"\1:{_BLOT}@"),
)
#: Log shippers truncate longer lines, which makes them invalid JSON.
MAXIMUM_LINE_BYTES = 8_192
_MAXIMUM_CUTS = 64
_ENCODER = msgspec.json.Encoder()
_UNSAFE = re.compile(r"[^\x20-\x7e]")

_request_id: ContextVar[str] = ContextVar("request_id", default="")


def bind_request_id(request_id: str) -> None:
    """Add the id to every later record of this thread or task; empty removes it."""
    _request_id.set(request_id)


def current_request_id() -> str:
    """Return the bound request id, or an empty string."""
    return _request_id.get()


def redact(text: str) -> str:
    """Return the text with everything that looks like a credential replaced.

    Credentials are tokens, secrets, passwords and private keys.
    """
    for pattern, blot in _PATTERNS:
        text = pattern.sub(blot, text)
    return text


def encode_line(value: object) -> bytes:
    """Return a JSON value or a struct as one line of JSON in printable ASCII.

    JSON encoders escape control characters, but not U+0085, U+2028 and similar separators.
    """
    try:
        encoded = _ENCODER.encode(value)
    except UnicodeEncodeError:
        encoded = _ENCODER.encode(_without_surrogates(msgspec.to_builtins(value)))
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded
    return _UNSAFE.sub(_escape_character, encoded.decode()).encode()


def cut_text(text: str, maximum: int) -> str:
    """Return the beginning of a text that :func:`encode_line` writes in at most so many bytes."""
    # A character outside the BMP is written as two escapes.
    while len(text) * len(r"\ud83d\ude00") > maximum and len(encode_line(text)) - 2 > maximum:
        text = text[: len(text) * 3 // 4]
    return text


def _without_surrogates(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {_without_surrogates(name): _without_surrogates(value[name]) for name in value}
        case list() | tuple():
            return [_without_surrogates(entry) for entry in value]
    return value


def _escape_character(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


class _LineFormatter(logging.Formatter):
    """Collects a record's fields, redacted: time, level, logger, message, request id, extras."""

    def facts(self, record: logging.LogRecord) -> dict[str, Any]:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        facts: dict[str, Any] = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        if request_id := _request_id.get():
            facts["request_id"] = request_id
        for name, value in vars(record).items():
            if name not in _STANDARD_ATTRIBUTES:
                facts[name] = _BLOT if _NAME_OF_SECRET.fullmatch(name) else _plain(value)
        if record.exc_info:
            facts["exception"] = redact(self.formatException(record.exc_info))
        return facts


def _plain(value: object) -> str | int | float | None:
    if value is None or isinstance(value, int | float):
        return value
    return redact(str(value))


def _within_limit(facts: dict[str, Any], write: Callable[[dict[str, Any]], str]) -> str:
    """Return the line for ``facts``; truncate the longest value until the line is short enough."""
    line = write(facts)
    for _ in range(_MAXIMUM_CUTS):
        if len(line.encode(errors="surrogatepass")) <= MAXIMUM_LINE_BYTES:
            break
        texts = {name: value for name, value in facts.items() if isinstance(value, str)}
        longest = max(texts, key=lambda name: len(texts[name]))
        # Keep both ends of a message or traceback, and drop the middle.
        kept = len(texts[longest]) // 4
        facts[longest] = f"{texts[longest][:kept]} ... {texts[longest][-kept:]}"
        line = write(facts)
    return line


class JsonFormatter(_LineFormatter):
    """One JSON object per record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line, without the line end."""
        return _within_limit(self.facts(record), lambda shortened: encode_line(shortened).decode())


class TextFormatter(_LineFormatter):
    """``time level logger: message key="value"``, for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line, without the line end; exception line breaks are escaped."""
        return _within_limit(self.facts(record), self._line)

    @staticmethod
    def _line(facts: dict[str, Any]) -> str:
        further = dict(facts)
        head = f"{further.pop('time')} {further.pop('level').upper()} {further.pop('logger')}: "
        message = _UNSAFE.sub(_escape_character, further.pop("message"))
        return (
            head
            + message
            + "".join(f" {name}={encode_line(value).decode()}" for name, value in further.items())
        )


class _LineHandler(logging.StreamHandler[Any]):
    """Writes to standard error, and enforces the lowest permitted level of libraries.

    While its reader is stuck, records are dropped and counted: no request waits for it.
    """

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.addFilter(_is_permitted)
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record unless the reader is stuck."""
        if not _is_read(self.stream, 0.0 if self._lost else _STUCK_SECONDS):
            self._lost += 1
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            message = f"{lost} log records were lost: the reader of standard error was stuck"
            super().emit(logging.LogRecord(__name__, logging.WARNING, "", 0, message, (), None))
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Write that a record was lost; the inherited method would print unredacted arguments."""
        self.stream.write(
            f'{{"level":"error","message":"a log record of {record.name} was lost"}}\n'
        )


def _is_read(stream: TextIO, seconds: float) -> bool:
    """Return whether a line can be written within ``seconds``; True without a descriptor."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(seconds * 1_000))


def _is_permitted(record: logging.LogRecord) -> bool:
    library = record.name
    while library:
        if record.levelno < LIBRARY_LEVELS.get(library, 0):
            return False
        library = library.rpartition(".")[0]
    return True


def configure_logging(settings: LoggingSettings) -> None:
    """Send all logging to standard error in the configured form and level; replace handlers."""
    root = logging.getLogger()
    for handler in [
        one for one in root.handlers if type(one) in (_LineHandler, logging.StreamHandler)
    ]:
        root.removeHandler(handler)
    handler = _LineHandler()
    handler.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter())
    root.addHandler(handler)
    root.setLevel(settings.level.upper())
    for name, level in LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(level)
    logging.getLogger(ACCESS_LOGGER).setLevel(logging.INFO)
    for name in _WITH_OWN_HANDLERS:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    logging.captureWarnings(capture=True)
