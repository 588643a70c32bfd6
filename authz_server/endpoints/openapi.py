"""The OpenAPI 3.1 document: ``openapi.json`` beside this module, for the enabled features.

The file is the document with a few notations of its own:

- ``"${NAME}"`` becomes a value of :func:`_values`; within a longer text, the value's text;
- ``"x-if": "NAME ..."`` keeps an object only if each of these values is true;
- ``"x-value"``, beside ``x-if``, is what stays in place of the object;
- ``"x-use": "NAME ..."`` adds the members of these ``x-parts``;
- ``"x-with": {...}`` gives values to the object alone.

An endpoint is described by an entry in ``paths``, most often of the part ``form_operation``, and by
the schemas of its form and its response. Its condition is a member of ``Features``.
"""

import re
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from authz_server import __version__
from authz_server.endpoints.discovery import Features
from authz_server.endpoints.introspection_batch import MAXIMUM_TOKENS
from authz_server.errors import REASONS
from authz_server.grants.jwt_bearer import JWT_BEARER_GRANT
from authz_server.settings import G2PSettings
from authz_server.tokens.authorization import MAXIMUM_RESOURCES
from authz_server.tokens.binding import BEARER, DPOP
from keys.jose.algorithms import ALGORITHMS

Values = Mapping[str, Any]

_NAME = re.compile(r"\$\{(\w+)\}")
_NOTATIONS = frozenset({"x-if", "x-use", "x-with"})
_ABSENT = object()
_SECONDS_AS_TEXT = {"type": "string", "pattern": "^[1-9][0-9]*$", "description": "Seconds."}
_SECONDS = {"type": "integer", "minimum": 1, "description": "Seconds."}


def describe_interface(features: Features, g2p: G2PSettings) -> dict[str, Any]:
    """Return the OpenAPI document, with the addresses that clients use.

    Args:
        features: the enabled features; the issuer is the server's address.
        g2p: the options of the G2P Connect profile.
    """
    document = dict(_template())
    parts = document.pop("x-parts")
    filled: dict[str, Any] = _fill(document, _values(features, g2p), parts)
    return filled


@cache
def _template() -> dict[str, Any]:
    content = Path(__file__).with_name("openapi.json").read_bytes()
    template: dict[str, Any] = msgspec.json.decode(content)
    return template


def _values(features: Features, g2p: G2PSettings) -> Values:
    """Return the values of ``${NAME}`` and of the conditions, by name."""
    issuer = urlsplit(features.issuer)
    algorithms = ALGORITHMS.values()
    return {
        **{field.name: getattr(features, field.name) for field in fields(features)},
        **{f"g2p_{name}": getattr(g2p, name) for name in g2p.__struct_fields__},
        **{f"errors_{reason.status}": _errors(reason.status) for reason in REASONS.values()},
        "errors": list(dict.fromkeys(reason.error for reason in REASONS.values())),
        "g2p_expires_in": _SECONDS_AS_TEXT if g2p.expires_in == "string" else _SECONDS,
        "g2p_token_types": list(dict.fromkeys([g2p.token_type, BEARER, DPOP])),
        "jwt_bearer": JWT_BEARER_GRANT in features.grant_types,
        "version": __version__,
        "issuer_origin": f"{issuer.scheme}://{issuer.netloc}",
        "issuer_path": issuer.path,
        "maximum_resources": MAXIMUM_RESOURCES,
        "maximum_tokens": MAXIMUM_TOKENS,
        "algorithms": list(ALGORITHMS),
        "key_types": sorted({each.kty for each in algorithms}),
        "curves": sorted({each.crv for each in algorithms if each.crv}),
    }


def _errors(status: int) -> list[str]:
    return sorted({reason.error for reason in REASONS.values() if reason.status == status})


def _fill(node: object, values: Values, parts: Values) -> Any:  # noqa: ANN401 - any JSON
    """Return a part of the document without the notations; ``_ABSENT`` if it does not apply."""
    match node:
        case str():
            return _fill_text(node, values)
        case list():
            filled = [_fill(each, values, parts) for each in node]
            return [each for each in filled if each is not _ABSENT]
        case dict():
            return _fill_object(node, values, parts)
    return node


def _fill_object(node: Values, values: Values, parts: Values) -> object:
    values = {**values, **node.get("x-with", {})}
    if not all(values[name] for name in node.get("x-if", "").split()):
        return _ABSENT
    if "x-value" in node:
        return _fill(node["x-value"], values, parts)
    members: dict[str, Any] = {}
    for part in _fill_text(node.get("x-use", ""), values).split():
        members.update(parts[part])
    members.update((name, each) for name, each in node.items() if name not in _NOTATIONS)
    filled = [(name, _fill(each, values, parts)) for name, each in members.items()]
    return {_fill_text(name, values): each for name, each in filled if each is not _ABSENT}


def _fill_text(text: str, values: Values) -> Any:  # noqa: ANN401 - any JSON
    """Return a text with its values; a text that is one name alone becomes the value itself."""
    if whole := _NAME.fullmatch(text):
        return values[whole[1]]
    filled = _NAME.sub(lambda found: str(values[found[1]]), text)
    return filled if filled == text else _fill_text(filled, values)
