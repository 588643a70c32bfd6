"""Bodies and parameters of requests to the admin API, read strictly."""

import re
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from authz_server.admin.problems import Problem
from authz_server.endpoints.json_bodies import (
    JSON_CHARACTER_SETS,
    JSON_TYPE,
    MAXIMUM_DEPTH,
    is_deeper,
)
from authz_server.endpoints.media_types import is_media_type
from authz_server.endpoints.request import Request
from keys.errors import TokenRefusedError
from keys.jose.compact import parse_json_object

#: A change may name its form (RFC 7396).
_JSON_TYPES = frozenset({JSON_TYPE, "application/merge-patch+json"})
_MAXIMUM_PARAMETERS = 20
_MAXIMUM_SEGMENT_CHARACTERS = 300
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PLACE = re.compile(r" - at `\$?\.?([^`]*)`$")

Struct = TypeVar("Struct", bound=msgspec.Struct)


def read_body(request: Request, kind: type[Struct]) -> Struct:
    """Return the JSON object in a body; an absent body is an empty object.

    Raises:
        Problem: ``unsupported-media-type``, ``invalid-request`` if it is malformed, or
            ``invalid-value`` if it has an unknown member or one of another type.
    """
    document: dict[str, Any] = {}
    if request.body:
        _require_json(request)
        # A database cannot store the character.
        if b"\\u0000" in request.body:
            raise Problem("invalid-request", "The body holds the character U+0000.")
        try:
            document = parse_json_object(request.body)
        except TokenRefusedError as error:
            detail = "The body must be a JSON object in UTF-8, without repeated members."
            raise Problem("invalid-request", detail) from error
        if is_deeper(document, MAXIMUM_DEPTH):
            raise Problem("invalid-request", "The body is nested too deeply.")
    return _convert(document, kind, "invalid-value", strict=True)


def read_query(request: Request, kind: type[Struct]) -> Struct:
    """Return the parameters in a query string.

    Raises:
        Problem: ``invalid-request``: one is malformed, repeated, unknown or of another type.
    """
    query = request.query
    if not query.isascii() or _BROKEN_ESCAPE.search(query):
        raise Problem("invalid-request", "The query string is malformed.")
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=_MAXIMUM_PARAMETERS,
        )
    except ValueError as error:
        raise Problem("invalid-request", "The query string is malformed.") from error
    values = dict(pairs)
    if len(values) < len(pairs):
        raise Problem("invalid-request", "A parameter was sent more than once.")
    if not all(value.isprintable() for value in values.values()):
        raise Problem("invalid-request", "A parameter holds a control character.")
    converted = _convert(values, kind, "invalid-request", strict=False)
    for name in values:
        # The conversion takes the text null for an absent value: a filter would be left out.
        if getattr(converted, name) is None:
            raise Problem("invalid-request", "It has no value.", members={"field": name})
    return converted


def read_segment(text: str) -> str:
    """Return a segment of a path, decoded.

    Raises:
        Problem: ``not-found``: nothing can have this name.
    """
    if _BROKEN_ESCAPE.search(text):
        raise Problem("not-found")
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise Problem("not-found") from error
    if not decoded.isprintable() or not 1 <= len(decoded) <= _MAXIMUM_SEGMENT_CHARACTERS:
        raise Problem("not-found")
    return decoded


def _require_json(request: Request) -> None:
    content_type = request.headers.get("content-type", "")
    if not is_media_type(content_type, _JSON_TYPES, JSON_CHARACTER_SETS):
        # RFC 5789, 3.1.
        accepted = ", ".join(sorted(_JSON_TYPES))
        headers = {"Accept-Patch": accepted} if request.method == "PATCH" else {}
        raise Problem("unsupported-media-type", f"Send {JSON_TYPE} in UTF-8.", headers=headers)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("unsupported-media-type", "Send the body without a content coding.")


def _convert(values: dict[str, Any], kind: type[Struct], problem: str, *, strict: bool) -> Struct:
    try:
        converted = msgspec.convert(values, kind, strict=strict)
    except msgspec.ValidationError as error:
        text = str(error)
        place = _PLACE.search(text)
        members = {"field": place[1]} if place and place[1] else {}
        detail = _PLACE.sub("", text).replace("`", "")
        raise Problem(problem, f"{detail}.", members=members) from error
    for name in kind.__struct_fields__:
        _require_usable_time(problem, name, getattr(converted, name))
    return converted


def _require_usable_time(problem: str, name: str, value: object) -> None:
    """Refuse a time that lies outside of the calendar in UTC."""
    if not isinstance(value, datetime):
        return
    try:
        value.astimezone(UTC)
    except OverflowError as error:
        raise Problem(problem, "The time is out of range.", members={"field": name}) from error
