"""Write the values of a declarative file as TOML."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from authz_server.errors import InvalidChangeError

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def toml_key(name: str) -> str:
    """Return a key, in quotes where TOML needs them."""
    return name if _BARE.fullmatch(name) else toml_text(name)


def toml_text(text: str) -> str:
    """Return a basic string of one line; invisible characters are escaped."""
    escaped = json.dumps(text, ensure_ascii=False)
    return "".join(each if each.isprintable() else _escape(each) for each in escaped)


def toml_value(value: object) -> str:
    """Return a value on one line.

    Raises:
        InvalidChangeError: TOML has no such value.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return toml_text(value)
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case Mapping():
            inner = ", ".join(
                f"{toml_key(name)} = {toml_value(each)}" for name, each in value.items()
            )
            return f"{{ {inner} }}" if inner else "{}"
        case Iterable():
            return f"[{', '.join(map(toml_value, value))}]"
    raise InvalidChangeError(f"TOML has no value for {value!r}: use JSON")


def toml_member(
    name: str, value: object, comments: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Yield the lines of a member; a list of several texts has a line for each.

    Args:
        name: the member's name.
        value: its value.
        comments: comments on texts of a list.
    """
    comments = comments or {}
    texts = isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    if not isinstance(value, list | tuple) or not texts or not _needs_lines(value, comments):
        yield f"{toml_key(name)} = {toml_value(value)}"
        return
    yield f"{toml_key(name)} = ["
    for each in value:
        comment = f"  # {comments[each]}" if each in comments else ""
        yield f"    {toml_text(each)},{comment}"
    yield "]"


def _needs_lines(texts: Iterable[str], comments: Mapping[str, str]) -> bool:
    listed = list(texts)
    return len(listed) > 1 or any(each in comments for each in listed)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"  # noqa: PLR2004 - the BMP
