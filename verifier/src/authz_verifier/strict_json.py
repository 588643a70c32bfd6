"""JSON objects from untrusted sources: UTF-8, no repeated members, no odd numbers."""

import json
from math import isfinite
from typing import Any, NoReturn

#: Enough for a time in nanoseconds.
MAXIMUM_NUMBER_CHARACTERS = 20
#: How deep objects and lists are nested at most. The limit of the library is another one in each
#: release of Python.
MAXIMUM_DEPTH = 100


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
    if data.count(b"[") + data.count(b"{") > MAXIMUM_DEPTH:
        _require_shallow(value)
    return value


def _require_shallow(value: Any) -> None:  # noqa: ANN401 - of any type
    level = [value]
    for _ in range(MAXIMUM_DEPTH):
        parts = [each for each in level if isinstance(each, dict | list)]
        if not parts:
            return
        level = [one for each in parts for one in (each.values() if type(each) is dict else each)]
    raise ValueError("nested too deeply")


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
