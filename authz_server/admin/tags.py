"""Entity tags, and the condition of a change (RFC 9110, 8.8.3 and 13.1.1)."""

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import msgspec

from authz_server.admin.problems import Problem

#: Members that differ without a change of the item.
_VOLATILE = frozenset({"last_used_at", "last_used_from", "works", "loaded_at", "age_seconds"})
_TAG_CHARACTERS = 22
_ANY = "*"
_TAG = re.compile(r'(?:W/)?"([!#-~\x80-\xff]*)"')
#: A compressing proxy may append its coding to the tag.
_CODINGS = ("-gzip", "-br", "-deflate", "-zstd", ";gzip", ";br")

_encode = msgspec.json.Encoder(order="deterministic").encode


def tag_of(item: object) -> str:
    """Return the entity tag of an item, which each change of the item changes."""
    digest = sha256(_encode(_without_volatile(msgspec.to_builtins(item)))).digest()
    return f'"{urlsafe_b64encode(digest).decode()[:_TAG_CHARACTERS]}"'


def require_match(condition: str | None, item: object) -> None:
    """Require ``If-Match`` with the tag of the item.

    A tag that a proxy has weakened, or marked with its coding, matches too.

    Args:
        condition: the value of the header; None: there is none.
        item: the present item.

    Raises:
        Problem: ``precondition-required`` or ``precondition-failed``.
    """
    if condition is None:
        raise Problem(
            "precondition-required",
            "Send If-Match with the ETag of the item that the change is based on, or *.",
        )
    present = tag_of(item)
    if condition.strip() != _ANY and present.strip('"') not in _tags(condition):
        raise Problem(
            "precondition-failed",
            "Another change was made since. Get the item again, and repeat the change on it.",
            headers={"ETag": present},
        )


def _tags(condition: str) -> Iterable[str]:
    found = set()
    for tag in _TAG.findall(condition):
        found.add(tag)
        found.update(tag.removesuffix(coding) for coding in _CODINGS)
    return found


def _without_volatile(value: Any) -> Any:  # noqa: ANN401 - any JSON
    match value:
        case dict():
            kept = ((name, each) for name, each in value.items() if name not in _VOLATILE)
            return {name: _without_volatile(each) for name, each in kept}
        case list() | tuple():
            return [_without_volatile(each) for each in value]
    return value
