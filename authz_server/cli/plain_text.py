"""Values as text, for a terminal and for JSON."""

from collections.abc import Iterable
from datetime import UTC, datetime

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def shown(text: str) -> str:
    """Return a text without characters that a terminal acts on."""
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in text)


def timestamp(at: datetime | None) -> str | None:
    """Return a time by RFC 3339 in UTC, to the second."""
    if at is None:
        return None
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def span(seconds: int) -> str:
    """Return a number of seconds in the largest unit that divides it, such as ``7 d``."""
    size, unit = next(each for each in _UNITS if seconds % each[0] == 0)
    return f"{seconds // size} {unit}"


def plain_value(value: object) -> object:
    """Return a value that JSON can represent; TypeError if there is none."""
    if isinstance(value, datetime):
        return timestamp(value)
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be printed as JSON")
