"""Reads a request's form once and strictly (RFC 6749, 3.2 and appendix B)."""

import re
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from authz_server.errors import OAuthError
from authz_server.settings import ServerSettings

FORM_TYPE = "application/x-www-form-urlencoded"
_REPEATABLE = "resource"  # RFC 8707, 2
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# RFC 6749, 5.2 has a code of its own for a scope with characters that no scope can have.
_OUTSIDE = {"scope": "scope_not_granted"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Form(NamedTuple):
    """The parameters of a body.

    ``values`` has each parameter once, never empty; ``resources`` those that may repeat.
    """

    values: dict[str, str]
    resources: tuple[str, ...]


class FormReader:
    """Reads forms within the limits of the settings.

    Args:
        settings: how large a body, a value and the number of parameters may be.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._maximum_body_bytes = settings.maximum_body_bytes
        self._maximum_value_bytes = settings.maximum_value_bytes
        self._maximum_parameters = settings.maximum_parameters

    def read(self, environ: dict[str, Any]) -> Form:
        """Return the form of a WSGI request.

        Raises:
            OAuthError: ``query_string_refused``, ``content_type_unsupported``, ``body_too_large``,
                ``parameter_...`` or ``parameters_too_many``.
        """
        if environ.get("QUERY_STRING"):
            raise OAuthError("query_string_refused")
        content_type = environ.get("CONTENT_TYPE", "")
        if content_type != FORM_TYPE and not _is_form_in_utf8(content_type):
            raise OAuthError("content_type_unsupported")
        if environ.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
            raise OAuthError("content_type_unsupported", "content encoding")
        return self.parse(self._body(environ))

    def parse(self, body: bytes) -> Form:
        """Return the form that ``body`` spells.

        Raises:
            OAuthError: as :meth:`read`.
        """
        try:
            text = body.decode("ascii")
        except UnicodeDecodeError:
            raise OAuthError("parameter_malformed", "not ASCII") from None
        if text.count("&") >= self._maximum_parameters:
            raise OAuthError("parameters_too_many")
        values: dict[str, str] = {}
        resources: list[str] = []
        seen: set[str] = set()
        for pair in text.split("&"):
            name, value = self._decoded_pair(pair)
            if name == _REPEATABLE:
                if value:
                    resources.append(value)
            elif pair:
                if name in seen:
                    raise OAuthError("parameter_repeated")
                seen.add(name)
                # RFC 6749, 3.2: a parameter without a value is treated as if it were omitted.
                if value:
                    values[name] = value
        return Form(values, tuple(resources))

    def _decoded_pair(self, pair: str) -> tuple[str, str]:
        limit = self._maximum_value_bytes
        # Three characters can spell one byte: nothing longer is worth decoding.
        if len(pair) > 6 * limit + 1:
            raise OAuthError("parameter_too_long")
        raw_name, _, raw_value = pair.partition("=")
        name = _decoded(raw_name)
        value = _decoded(raw_value, _OUTSIDE.get(name, "parameter_malformed"))
        if _bytes_in(value) > limit or _bytes_in(name) > limit:
            raise OAuthError("parameter_too_long")
        return name, value

    def _body(self, environ: dict[str, Any]) -> bytes:
        limit = self._maximum_body_bytes
        declared = environ.get("CONTENT_LENGTH") or ""
        if declared:
            # RFC 9110, 8.6: digits and nothing else.
            if not (declared.isascii() and declared.isdigit()):
                raise OAuthError("parameter_malformed", "content length")
            if len(declared) > len(str(limit)) or int(declared) > limit:
                raise OAuthError("body_too_large")
            limit = int(declared)
        elif "HTTP_TRANSFER_ENCODING" not in environ:
            return b""
        stream = environ["wsgi.input"]
        body: bytes = stream.read(limit if declared else limit + 1)
        if declared and len(body) < limit:
            raise OAuthError("parameter_malformed", "the body ended early")
        if len(body) > limit:
            raise OAuthError("body_too_large")
        return body


def _decoded(raw: str, reason: str = "parameter_malformed") -> str:
    if "+" in raw:
        raw = raw.replace("+", " ")
    if "%" in raw:
        if _BROKEN_ESCAPE.search(raw):
            raise OAuthError("parameter_malformed", "percent encoding")
        try:
            raw = unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            raise OAuthError("parameter_malformed", "not UTF-8") from None
    if not raw.isprintable() and _CONTROL.search(raw):
        raise OAuthError(reason, "control character")
    return raw


def _bytes_in(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _is_form_in_utf8(content_type: str) -> bool:
    """Tell whether this is the form's type, with at most ``charset=utf-8`` beside it."""
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if media_type != FORM_TYPE or len(parameters) > 1:
        return False
    return not parameters or parameters[0] in {"charset=utf-8", 'charset="utf-8"'}
