"""Parse TOML and JSON that may be hostile, in bounded time and depth."""

import json
import math
import re
import tomllib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, NoReturn

from authz_server.errors import InvalidChangeError
from authz_server.settings.sources import describe_toml_fault

MAXIMUM_FILE_BYTES = 32 * 1024 * 1024
MAXIMUM_DEPTH = 32
_BYTE_ORDER_MARK = "\ufeff"
# The parser's time grows with the square of the number of a key's parts.
_LONG_KEY = re.compile(
    r"(?:(?<![\w-])[\w-]++|\"[^\"\n]*+\"|'[^'\n]*+')"
    r"(?:[ \t]*+\.[ \t]*+(?:[\w-]++|\"[^\"\n]*+\"|'[^'\n]*+')){32}"
)
# PostgreSQL stores no NUL, and UTF-8 has no surrogates.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def read_bounded(path: Path) -> str:
    """Return the text of a file.

    Raises:
        InvalidChangeError: it has more than 32 MiB, or is neither UTF-8 nor UTF-16 with a byte
            order mark, as spreadsheets write it.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(MAXIMUM_FILE_BYTES + 1)
    if len(content) > MAXIMUM_FILE_BYTES:
        raise InvalidChangeError(f"{path}: it has more than {MAXIMUM_FILE_BYTES >> 20} MiB")
    encoding = "utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8"
    try:
        return content.decode(encoding).removeprefix(_BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidChangeError(f"{path}:{line}: it is not UTF-8 text") from error


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """Return the tables of TOML text.

    Args:
        text: the text.
        name: the name of the file, for errors.

    Raises:
        InvalidChangeError: it is malformed, or nested too deeply.
    """
    if (long := _LONG_KEY.search(text)) is not None:
        line = text.count("\n", 0, long.start()) + 1
        raise InvalidChangeError(f"{name}:{line}: a key has more than {MAXIMUM_DEPTH} parts")
    try:
        tables = tomllib.loads(text)
    except RecursionError as error:
        raise InvalidChangeError(f"{name}: it is nested too deeply") from error
    except (ValueError, OverflowError) as error:
        hint = "; YAML is not read: use TOML or JSON" if name.endswith((".yaml", ".yml")) else ""
        problem = describe_toml_fault(error)
        raise InvalidChangeError(f"{name}: it is not TOML: {problem}{hint}") from error
    _require_plain(tables, name)
    return tables


def parse_json(text: str, name: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value of JSON text; an object with two members of one name is refused.

    Args:
        text: the text.
        name: the name of the file, for errors.

    Raises:
        InvalidChangeError: it is malformed, or nested too deeply.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise InvalidChangeError(f"{name}: it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise InvalidChangeError(f"{name}:{error.lineno}: it is not JSON: {error.msg}") from error
    except ValueError as error:
        raise InvalidChangeError(f"{name}: it is not JSON: {error}") from error
    _require_plain(value, name)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the member {twice[:100]!r} occurs twice in one object")
    return members


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number of JSON")


def _require_plain(value: object, name: str) -> None:
    """Refuse what no field takes: deep nesting, NUL, surrogates, dates, numbers without an end."""
    level = [("", value)]
    for _ in range(MAXIMUM_DEPTH):
        level = [item for path, each in level for item in _items(path, each, name)]
        if not level:
            return
    raise InvalidChangeError(f"{name}: {level[0][0][:200]}: it is nested too deeply")


def _items(path: str, value: object, name: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, each in value.items():
            below = f"{path}.{key}" if path else key
            _require_storable(key, below, name)
            yield below, each
    elif isinstance(value, list):
        yield from ((f"{path}[{index}]", each) for index, each in enumerate(value))
    elif isinstance(value, str):
        _require_storable(value, path, name)
    elif (isinstance(value, date) and not isinstance(value, datetime)) or isinstance(value, time):
        raise InvalidChangeError(f"{name}: {path}: use a time with its zone or a string")
    elif isinstance(value, datetime) and ".properties." in path:
        raise InvalidChangeError(f"{name}: {path}: write the time as a string")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidChangeError(f"{name}: {path}: use a finite number")


def _require_storable(text: str, path: str, name: str) -> None:
    if _UNSTORABLE.search(text):
        shown = path.encode("unicode_escape", "backslashreplace").decode("ascii")
        raise InvalidChangeError(f"{name}: {shown[:200]}: NUL and surrogates cannot be stored")
