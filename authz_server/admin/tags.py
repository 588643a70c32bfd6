"""Entity tags, and the condition of a change (RFC 9110, 8.8.3 and 13.1.1)."""

import re
from collections.abc import Iterable

from authz_server.admin.problems import Problem
from authz_server.operations.views import revision_of

_ANY = "*"
_TAG = re.compile(r'(?:W/)?"([!#-~\x80-\xff]*)"')
#: A compressing proxy may append its coding to the tag.
_CODINGS = ("-gzip", "-br", "-deflate", "-zstd", ";gzip", ";br")


def tag_of(item: object) -> str:
    """Return the entity tag of an item, which each change of the item changes."""
    return f'"{revision_of(item)}"'


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
