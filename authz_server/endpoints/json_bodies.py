"""Read a JSON object from the body of a request, strictly (RFC 8259)."""

from collections.abc import Mapping
from typing import Any

from authz_server.endpoints.forms import Form
from authz_server.endpoints.media_types import is_media_type
from authz_server.endpoints.request import Request
from authz_server.errors import OAuthError
from keys.errors import TokenRefusedError
from keys.jose.compact import parse_json_object

JSON_TYPE = "application/json"
#: JSON is in UTF-8 (RFC 8259, 8.1), of which ASCII is a part.
JSON_CHARACTER_SETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_JSON_TYPES = frozenset({JSON_TYPE})
#: A JWK Set in client metadata has a depth of 4.
MAXIMUM_DEPTH = 8
_VALUE_CHARACTERS = 16_384


def read_json_object(
    request: Request, malformed: str = "client_metadata_invalid"
) -> dict[str, Any]:
    """Return the JSON object in a request.

    Args:
        request: the request.
        malformed: the reason of the refusal of a body that is not a JSON object, repeats a member
            or is nested too deeply.

    Raises:
        OAuthError: ``query_string_refused``, ``json_expected`` or ``malformed``.
    """
    if request.query:
        raise OAuthError("query_string_refused")
    content_type = request.headers.get("content-type", "")
    if not is_media_type(content_type, _JSON_TYPES, JSON_CHARACTER_SETS):
        raise OAuthError("json_expected")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise OAuthError("json_expected", "content encoding")
    try:
        document = parse_json_object(request.body)
    except TokenRefusedError as error:
        raise OAuthError(malformed, str(error)) from None
    if is_deeper(document, MAXIMUM_DEPTH):
        raise OAuthError(malformed, "nested too deeply")
    return document


def read_form(members: Mapping[str, object]) -> Form:
    """Return members of a JSON object as the parameters of a form; empty ones are omitted.

    Raises:
        OAuthError: ``parameter_malformed`` or ``parameter_too_long``.
    """
    values: dict[str, str] = {}
    for name, value in members.items():
        if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
            raise OAuthError("parameter_malformed", "a member is not a string in ASCII")
        if len(value) > _VALUE_CHARACTERS:
            raise OAuthError("parameter_too_long")
        if value:
            values[name] = value
    return Form(values, ())


def is_deeper(value: object, depth: int) -> bool:
    """Return whether a JSON value is nested more deeply than ``depth``."""
    if not isinstance(value, dict | list):
        return False
    below = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(is_deeper(each, depth - 1) for each in below)
