"""The operator's log: one line per record, nothing that could be used as a credential."""

import base64
import contextlib
import io
import json
import logging
import os
import re
import secrets
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_server.logs import (
    LIBRARY_LEVELS,
    MAXIMUM_LINE_BYTES,
    JsonFormatter,
    TextFormatter,
    bind_request_id,
    configure_logging,
    current_request_id,
    encode_line,
    redact,
)
from authz_server.settings import LoggingSettings, Secret

HOSTILE = [
    "a\r\nb",
    "\x1b[31mred\x1b[0m",
    "a\u2028b\u2029c",
    "next\x85line \x0b\x0c\x1c\x1d\x1e",
    '"}\n{"level":"forged"}',
    "\x00\x7f\x9b31m",
    "\U0001f600 é",
]


@pytest.fixture(autouse=True)
def _restored():
    """Leave logging as it was: the levels and handlers belong to the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    libraries = {name: logging.getLogger(name).level for name in LIBRARY_LEVELS}
    yield
    root.handlers[:], root.level = handlers, level
    for name, usual in libraries.items():
        logging.getLogger(name).setLevel(usual)
    logging.captureWarnings(capture=False)
    bind_request_id("")


@pytest.fixture(params=["json", "text"])
def form(request):
    return request.param


@pytest.fixture
def log(monkeypatch, form):
    """Return a function: what was logged so far, at debug level in this form."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging(LoggingSettings(level="debug", format=form))
    return stream.getvalue


def jwt():
    header = base64.urlsafe_b64encode(b'{"alg":"ES256","typ":"at+jwt"}').decode().rstrip("=")
    return f"{header}.{secrets.token_urlsafe(120)}.{secrets.token_urlsafe(64)}"


def one_line(text):
    assert text.endswith("\n")
    assert len(text.splitlines()) == 1
    assert all(0x20 <= ord(character) < 0x7F for character in text[:-1])
    return text


@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
def test_whatever_a_record_holds_it_stays_one_line(log, form, hostile):
    """Case K123."""
    bind_request_id(hostile)
    logging.getLogger("authz_server").info("client %s", hostile, extra={"scope": hostile})

    line = one_line(log())
    if form == "json":
        record = json.loads(line)
        assert set(record) == {"time", "level", "logger", "message", "request_id", "scope"}
        assert record["message"] == f"client {hostile}"
        assert record["scope"] == record["request_id"] == hostile


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()], ids=["json", "text"])
def test_a_lone_surrogate_harms_no_record(formatter):
    """Case K123."""
    record = logging.LogRecord("authz_server", logging.INFO, "", 1, "client %s", ("\ud800",), None)
    record.scope = ["\udfff", {"\ud800": 1}]
    line = one_line(formatter.format(record) + "\n")
    assert "\\ud800" in line
    assert "\\udfff" in line


@given(st.text())
def test_any_text_is_one_line_and_comes_back(text):
    """Case K123."""
    line = encode_line({"message": text})
    assert re.fullmatch(rb"[\x20-\x7e]*", line)
    assert json.loads(line) == {"message": text}


def test_an_exception_stays_in_its_record(log, form):
    """Case K123."""
    try:
        raise ValueError("two\nlines")  # noqa: TRY301 - the traceback is what is tested
    except ValueError:
        logging.getLogger("authz_server").exception("it failed")

    line = one_line(log())
    assert "two\\nlines" in line
    assert "Traceback" in line
    if form == "json":
        assert "two\nlines" in json.loads(line)["exception"]


@pytest.mark.parametrize("character", ["a", "\u2028", "\x00"], ids=ascii)
def test_a_long_record_is_cut_and_stays_one_record(log, form, character):
    """Case K123."""
    long = character * 50_000
    logging.getLogger("authz_server").error("begin %s end", long, extra={"scope": long})
    line = one_line(log())
    assert len(line.encode()) <= MAXIMUM_LINE_BYTES + 1
    assert "begin" in line
    assert "end" in line
    if form == "json":
        assert json.loads(line)["level"] == "error"


def test_records_carry_time_level_logger_and_request_id(log, form):
    bind_request_id("request-7")
    logging.getLogger("authz_server.app").warning("slow", extra={"milliseconds": 12, "who": None})
    bind_request_id("")
    assert current_request_id() == ""

    line = one_line(log())
    time_pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    if form == "text":
        rest = ' WARNING authz_server.app: slow request_id="request-7" milliseconds=12 who=null\n'
        assert re.fullmatch(time_pattern + re.escape(rest), line)
    else:
        record = json.loads(line)
        assert re.fullmatch(time_pattern, record.pop("time"))
        assert record == {
            "level": "warning",
            "logger": "authz_server.app",
            "message": "slow",
            "request_id": "request-7",
            "milliseconds": 12,
            "who": None,
        }


SECRET = "Zq3vYp8RkT0wX1mN5bC7dE9fG2hJ4aL6"
SPOKEN = [
    f"client_secret={SECRET}&scope=mapper/link",
    f"client_id=a&client_secret={SECRET}",
    f"client_secret%3D{SECRET}",
    f"{{'client_secret': '{SECRET}'}}",
    f'{{"client_secret": "{SECRET}"}}',
    f'"{{\\"client_secret\\": \\"{SECRET}\\"}}"',
    f"client_secret: {SECRET}",
    f"Authorization: Basic {SECRET}==",
    f"authorization: bearer {SECRET}",
    f"('Authorization', 'DPoP {SECRET}')",
    f"Basic%20{SECRET}",
    f"access_token={SECRET}",
    f"token={SECRET}&token_type_hint=access_token",
    f"client_assertion={SECRET}",
    f"password='a {SECRET}'",
    f"password='{SECRET}",
    f"postgresql://authz:{SECRET}@db/authz",
    f"-----BEGIN EC PRIVATE KEY-----\n{SECRET}\n-----END EC PRIVATE KEY-----",
    f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
    f'{{"kty":"EC","crv":"P-256","d":"{SECRET}"}}',
    f'"{{\\"kty\\":\\"EC\\",\\"d\\":\\"{SECRET}\\"}}"',
    f"{'b' * 24}.{SECRET}.{'c' * 24}",
    # They begin as a sentence does.
    f"password: the{SECRET}",
    f"password: it-{SECRET}",
    f"client_secret: a.{SECRET}",
    f'token: "the {SECRET}"',
    f"token: 'it {SECRET}'",
    f"bearer token{SECRET}",
    f"DPoP proof.{SECRET}",
    f"Bearer token={SECRET}",
]


@pytest.mark.parametrize("spoken", SPOKEN)
def test_what_looks_like_a_credential_is_blotted_out(log, spoken):
    """Case K122."""
    logger = logging.getLogger("authz_server")
    logger.info(spoken)
    logger.info("request: %s", spoken, extra={"form": spoken, "parts": [spoken]})
    try:
        raise RuntimeError(spoken)  # noqa: TRY301 - the traceback is what is tested
    except RuntimeError:
        logger.exception("it failed")

    assert SECRET not in log()
    assert "[redacted]" in log()


@pytest.mark.parametrize("prefix", ["", "token ", "Bearer ", "x=", '"', "("])
def test_tokens_are_blotted_out_wherever_they_stand(log, prefix):
    """Case K122."""
    token = jwt()
    encrypted = f"{token}.{secrets.token_urlsafe(30)}.{secrets.token_urlsafe(16)}"
    for one in (token, encrypted, token.rpartition(".")[0] + "."):
        logging.getLogger("authz_server").info("%s%s)", prefix, one)
    assert not any(part in log() for part in encrypted.split(".")[1:])


def test_fields_named_like_a_secret_and_secret_values_are_blotted_out(log):
    """Case K122."""
    secret = Secret(SECRET.encode())
    extra = {"client_secret": SECRET, "Authorization": SECRET, "settings": {"pepper": secret}}
    logging.getLogger("authz_server").info("loaded %s", secret, extra=extra)
    assert SECRET not in log()


def test_ordinary_words_stay():
    for text in (
        "authz_server.tokens.issuer: token.issued for mapper-client",
        "GET /.well-known/oauth-authorization-server from 192.0.2.1",
        "kid 8xYw0cXWn2vQpZr1sT3uV5wX7yZ9aB1cD3eF5gH7iJ9 of ring es256",
        "https://auth.example:8443/oauth2/token answered 200",
        "clients.secret_pepper: the secret is empty",
        "database.password: the file /run/password cannot be read (Permission denied)",
        "server.tls_private_key: the path server.key does not exist",
        "webhooks.receivers.one.secret: use at least 24 bytes",
        "a bearer token is missing, the DPoP proof is older than the token. Make a DPoP proof.",
    ):
        assert redact(text) == text


@pytest.mark.parametrize("name", ["password", "client_secret", "token", "clients.secret_pepper"])
def test_of_a_secret_in_words_one_common_word_stays(name: str):
    """A value ends at its first space; one that begins otherwise than a sentence is replaced."""
    assert redact(f"{name}: it {name}={SECRET}") == f"{name}: it {name}=[redacted]"
    for value in ("the", "The dog", "correct horse", "their dog", "it\tis", "a\nb"):
        first, rest = re.fullmatch(r"(\S+)(.*)", value, re.DOTALL).groups()
        assert redact(f"{name}: {value}") == f"{name}: [redacted]{rest}", first
    assert redact(f"{name}=it is") == f"{name}=[redacted] is"


@pytest.mark.parametrize(
    "unit",
    ["a-", "eyJhbGciOi.", "token=", "token='\\", "Bearer ", "://a:", '"d":"', "-----BEGIN A "],
)
def test_long_input_costs_no_more_than_its_length(unit):
    text = unit * (100_000 // len(unit))
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 1.0


def test_authlib_cannot_log_tokens_even_at_debug(log):
    """Case K122."""
    token = jwt()
    for name in ("authlib", "authlib.oauth2.rfc6749.authorization_server"):
        logging.getLogger(name).debug("token %r", {"access_token": token})
        logging.getLogger(name).setLevel(logging.DEBUG)
        logging.getLogger(name).debug("lowered again %s", token)
        logging.getLogger(name).info("lowered again")
        logging.getLogger(name).setLevel(logging.NOTSET)
    assert log() == ""
    logging.getLogger("authlib.oauth2").warning("this one may")
    assert "this one may" in log()


@pytest.mark.parametrize("name", sorted(LIBRARY_LEVELS))
def test_libraries_are_heard_from_warnings_on(log, name):
    """Case K122."""
    logging.getLogger(name).info("GET /oauth2/token?client_secret=x")
    assert log() == ""


def test_a_record_that_cannot_be_written_shows_nothing_of_itself(log):
    """Case K122."""
    record = logging.LogRecord("authz_server", logging.INFO, "", 1, "%d", (SECRET,), None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, JsonFormatter | TextFormatter):
            handler.handle(record)
    assert one_line(log()).startswith('{"level":"error"')
    assert SECRET not in log()


def test_the_level_of_the_settings_holds_and_a_second_call_replaces_the_first(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging(LoggingSettings(level="info"))
    configure_logging(LoggingSettings(level="warning"))
    logging.getLogger("authz_server").info("no")
    logging.getLogger("authz_server").warning("yes")
    assert len(stream.getvalue().splitlines()) == 1


def test_the_web_server_s_own_handlers_are_replaced(monkeypatch):
    """Case K122."""
    ours, own = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", ours)
    library = logging.getLogger("werkzeug")
    library.addHandler(logging.StreamHandler(own))
    library.propagate = False
    configure_logging(LoggingSettings())
    library.warning("worker started")
    assert own.getvalue() == ""
    assert "worker started" in ours.getvalue()


def test_a_reader_that_is_stuck_holds_up_no_request(monkeypatch):
    """Lines are dropped and counted until it reads on. Case K125."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(write, b"x" * 4_096):
            pass
    os.set_blocking(write, True)
    with os.fdopen(write, "w") as stream, os.fdopen(read, "rb") as reader:
        monkeypatch.setattr(sys, "stderr", stream)
        configure_logging(LoggingSettings(format="json"))
        logger = logging.getLogger("authz_server")
        began = time.monotonic()
        for _ in range(200):
            logger.warning("lost")
        assert time.monotonic() - began < 10
        os.read(reader.fileno(), 1 << 20)
        logger.warning("read")
        lines = os.read(reader.fileno(), 1 << 20).decode().splitlines()
    messages = [json.loads(line)["message"] for line in lines if line.startswith("{")]
    assert messages == [
        "200 log records were lost: the reader of standard error was stuck",
        "read",
    ]
