"""JSON objects from untrusted sources: UTF-8, no repeated members, no odd numbers."""

import json
from math import isfinite
from typing import Any, NoReturn

#: Enough for a time in nanoseconds.
MAXIMUM_NUMBER_CHARACTERS = 20


def parse_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`.

    Raises:
        ValueError: it is anything else, repeats a member, is nested too deeply, or holds NaN, an
            oversized number or a lone surrogate. Nothing else is raised for any bytes.
    """
    try:
        value = _DECODER.decode(data.decode())
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()  # fails for a lone surrogate
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one error for any wrong bytes
    return value


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("repeated member")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _bounded_integer(digits: str) -> int:
    if len(digits) > MAXIMUM_NUMBER_CHARACTERS:
        raise ValueError("oversized number")
    return int(digits)


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not isfinite(value):
        raise ValueError("oversized number")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_members,
    parse_constant=_refuse_constant,
    parse_int=_bounded_integer,
    parse_float=_finite_float,
)
