"""Parse a request's form, once and strictly (RFC 6749, 3.2 and appendix B)."""

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote, unquote_to_bytes

from authz_server.endpoints.media_types import is_media_type
from authz_server.endpoints.request import Request
from authz_server.errors import OAuthError
from authz_server.settings import ServerSettings

FORM_TYPE = "application/x-www-form-urlencoded"
_FORM_TYPES = frozenset({FORM_TYPE})
# The body is ASCII, which all of them decode alike.
_CHARACTER_SETS = frozenset({"utf-8", "utf8", "iso-8859-1", "us-ascii", "ascii"})
#: A presented token may hold any characters, up to the size of the body (RFC 7662, 2.1).
PRESENTED = "token"
_REPEATABLE = "resource"  # RFC 8707, 2
_AUDIENCE = "audience"  # RFC 8693, 2.1
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# RFC 6749, 5.2 has a code of its own for a scope with characters that no scope can have.
_OUTSIDE = {"scope": "scope_not_granted"}
#: Parameters that hold no secret, and often a colon or a slash, which clients encode.
_PUBLIC = frozenset({"client_assertion_type", "grant_type", "resource", "scope"})
_REMEMBERED_CHARACTERS = 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# RFC 8259, 2: the blanks of JSON text include tabs and line breaks.
_CONTROL_IN = {"authorization_details": re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")}


class Form(NamedTuple):
    """The parameters of a form.

    ``values`` holds each parameter once and never empty; ``resources`` holds the repeatable one.
    ``further_audiences`` holds the repetitions of ``audience``, which one grant alone accepts.
    """

    values: dict[str, str]
    resources: tuple[str, ...]
    further_audiences: tuple[str, ...] = ()


class FormReader:
    """Reads forms within the configured limits.

    Args:
        settings: the largest value and the largest number of parameters.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._maximum_value_bytes = settings.maximum_value_bytes
        self._maximum_parameters = settings.maximum_parameters

    def read(self, request: Request) -> Form:
        """Return the form of a request.

        Raises:
            OAuthError: ``query_string_refused``, ``content_type_unsupported``,
                ``parameter_...`` or ``parameters_too_many``.
        """
        if request.query:
            raise OAuthError("query_string_refused")
        content_type = request.headers.get("content-type", "")
        if content_type != FORM_TYPE and not is_media_type(
            content_type, _FORM_TYPES, _CHARACTER_SETS
        ):
            raise OAuthError("content_type_unsupported")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise OAuthError("content_type_unsupported", "content encoding")
        return self.parse(request.body)

    def parse(self, body: bytes) -> Form:
        """Return the form encoded in ``body``.

        Raises:
            OAuthError: as :meth:`read`.
        """
        # Latin-1 maps each byte to a character; a parameter outside ASCII is refused below.
        text = body.decode("latin-1")
        if text.count("&") >= self._maximum_parameters:
            raise OAuthError("parameters_too_many")
        values: dict[str, str] = {}
        resources: list[str] = []
        audiences: list[str] = []
        seen: set[str] = set()
        for pair in text.split("&"):
            name, value = self._decoded_pair(pair)
            if name == _REPEATABLE:
                if value:
                    resources.append(value)
            elif pair:
                if name in seen:
                    if name != _AUDIENCE:
                        raise OAuthError("parameter_repeated")
                    audiences.append(value)
                    continue
                seen.add(name)
                # RFC 6749, 3.2: a parameter without a value is treated as if it were omitted.
                if value:
                    values[name] = value
        return Form(values, tuple(resources), tuple(audiences))

    def _decoded_pair(self, pair: str) -> tuple[str, str]:
        raw_name, _, raw_value = pair.partition("=")
        if raw_name == PRESENTED:
            return raw_name, decode_presented(raw_value)
        limit = self._maximum_value_bytes
        plain = "%" not in pair and "+" not in pair and pair.isascii() and pair.isprintable()
        if plain and len(pair) <= limit:
            return raw_name, raw_value
        longest = min(limit, _REMEMBERED_CHARACTERS)
        if raw_name in _PUBLIC and len(raw_value) <= longest and raw_value.isascii():
            return raw_name, _decoded_again(raw_name, raw_value)
        if "%" in raw_name and unquote(raw_name) == PRESENTED:
            return PRESENTED, decode_presented(raw_value)
        # Three characters encode at most one byte: a longer pair is too long in any case.
        if len(pair) > 6 * limit + 1:
            raise OAuthError("parameter_too_long")
        if not pair.isascii():
            raise OAuthError("parameter_malformed", "not ASCII")
        name = _decoded(raw_name)
        value = _decoded_value(name, raw_value)
        if _bytes_in(value) > limit or _bytes_in(name) > limit:
            raise OAuthError("parameter_too_long")
        return name, value


def _decoded_value(name: str, raw: str) -> str:
    reason = _OUTSIDE.get(name, "parameter_malformed")
    return _decoded(raw, reason, _CONTROL_IN.get(name, _CONTROL))


@lru_cache(maxsize=256)
def _decoded_again(name: str, raw: str) -> str:
    # Cached: clients send the same few values. Refused ones are not cached.
    return _decoded_value(name, raw)


def _decoded(
    raw: str, reason: str = "parameter_malformed", control: re.Pattern[str] = _CONTROL
) -> str:
    if "+" in raw:
        raw = raw.replace("+", " ")
    if "%" in raw:
        if _BROKEN_ESCAPE.search(raw):
            raise OAuthError("parameter_malformed", "percent encoding")
        try:
            raw = unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            raise OAuthError("parameter_malformed", "not UTF-8") from None
    if not raw.isprintable() and control.search(raw):
        raise OAuthError(reason, "control character")
    return raw


def decode_presented(raw: str) -> str:
    """Return a presented token; one that cannot be decoded is inactive, not malformed."""
    if raw.isascii() and "%" not in raw and "+" not in raw:
        return raw
    spaced = raw.replace("+", " ").encode("latin-1")
    return unquote_to_bytes(spaced).decode(errors="replace")


def _bytes_in(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
