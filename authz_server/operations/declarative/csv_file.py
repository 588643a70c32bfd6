"""Import clients from a CSV file with a header line and a line for each client."""

import csv
import io
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from authz_server.errors import InvalidChangeError
from authz_server.operations.declarative.imported import Draft, Imported
from authz_server.operations.declarative.parsing import read_bounded

#: Columns of other systems, by the field that they are; the members of RFC 7591 among them.
_SYNONYMS = {
    "client_id": "id",
    "client_name": "name",
    "organization": "organisation",
    "scope": "allowed_scopes",
    "scopes": "allowed_scopes",
    "token_endpoint_auth_method": "authentication_method",
    "client_secret": "secret",
}
_TEXTS = ("organisation", "authentication_method", "g2p_answer")
_LISTS = (
    "grant_types",
    "allowed_scopes",
    "default_scopes",
    "allowed_resource_servers",
    "permissions",
)
_TIMES = ("starts_at", "expires_at")
_SCOPES = ("allowed_scopes", "default_scopes")
COLUMNS = ("id", "name", *_TEXTS, *_LISTS, "token_lifetime_seconds", *_TIMES, "enabled", "secret")
#: None of these is part of a scope, an id or another text of a list.
_SEPARATORS = re.compile(r"[\s,;]+")
#: The lines before the header: empty ones, and the one by which a spreadsheet names the delimiter.
_EMPTY = r"(?:[ \t]*+\r?\n)*+"
_HEADER = re.compile(
    rf"(?P<lines>{_EMPTY}(?:sep=(?P<stated>[,;\t|])[ \t]*+\r?\n{_EMPTY})?)", re.IGNORECASE
)
#: The blanks without a line break that spreadsheets write, which no name may have.
_BLANKS = dict.fromkeys((0x00A0, 0x2007, 0x202F), " ")
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


def import_csv(path: Path) -> Imported:
    """Return the clients of a CSV file; blanks, commas or semicolons separate the texts of a list.

    Args:
        path: the file: UTF-8, or UTF-16 with a byte order mark; with commas, semicolons or tabs, or
            with what a first line such as ``sep=;`` names.

    Raises:
        InvalidChangeError: it is not CSV, has no column ``id``, or a value has another type; the
            error names the line.
        OSError: it cannot be read.
    """
    text = read_bounded(path)
    draft = Draft()
    begin = _HEADER.match(text)
    first, stated = (begin["lines"].count("\n"), begin["stated"]) if begin else (0, None)
    text = text[begin.end() :] if begin else text
    delimiter = stated or max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [_column(each) for each in next(reader, [])]
        _require_columns(names, f"{path}:{first + 1}")
        for name in dict.fromkeys(filter(None, names)):
            if name not in COLUMNS:
                draft.note("the header", f"the column {name!r} does not carry over")
        for row in reader:
            if any(each.strip() for each in row):
                place = f"{path}:{first + reader.line_num}"
                _require_named(names, row, place)
                _add_client(draft, dict(zip(names, row, strict=False)), place)
    except csv.Error as error:
        place = f"{path}:{first + reader.line_num}"
        raise InvalidChangeError(f"{place}: it is not CSV: {error}") from error
    return draft.finish()


def _require_named(names: list[str], row: list[str], place: str) -> None:
    """Refuse a row with a value in no column, or in one without a name."""
    if any(each.strip() for each in row[len(names) :]):
        raise InvalidChangeError(f"{place}: it has more fields than the header")
    if any(each.strip() and not name for name, each in zip(names, row, strict=False)):
        raise InvalidChangeError(f"{place}: it has a field in a column without a name")


def _column(name: str) -> str:
    plain = name.strip().lower().replace(" ", "_")
    return _SYNONYMS.get(plain, plain)


def _require_columns(names: list[str], place: str) -> None:
    if "id" not in names:
        raise InvalidChangeError(f"{place}: the header has no column id")
    for name in names:
        if names.count(name) > 1 and name in COLUMNS:
            raise InvalidChangeError(f"{place}: two columns are {name}")


def _add_client(draft: Draft, row: Mapping[str, str], place: str) -> None:
    # A secret is kept as the client has it, in its characters.
    plain = {
        name: value.strip(" \t\r\n") if name == "secret" else value.translate(_BLANKS).strip()
        for name, value in row.items()
    }
    given = {name: value for name, value in plain.items() if value.strip()}
    client_id = given.get("id", "")
    if not draft.usable_id(place, client_id):
        return
    name = draft.usable_name(client_id, given.get("name", ""))
    members: dict[str, Any] = {"name": name, "allowed_scopes": []}
    members |= {name: given[name] for name in _TEXTS if name in given}
    for name in _LISTS:
        if name in given:
            members[name] = _list(draft, client_id, name, given[name])
    if "token_lifetime_seconds" in given:
        members["token_lifetime_seconds"] = _number(given["token_lifetime_seconds"], place)
    for name in _TIMES:
        if name in given:
            members[name] = _time(given[name], f"{place}: {name}")
    if "enabled" in given:
        members["enabled"] = _truth(given["enabled"], place)
    if "secret" in given:
        draft.secrets[client_id] = given["secret"]
    draft.clients[client_id] = members


def _list(draft: Draft, client_id: str, name: str, value: str) -> list[str]:
    texts = [each for each in _SEPARATORS.split(value) if each]
    if name not in _SCOPES:
        return texts
    found: list[str] = []
    for spelling in texts:
        scope = spelling if spelling.endswith("/*") else draft.scope_name(client_id, spelling)
        if scope is None:
            continue
        found.append(scope)
        if not draft.is_shipped(scope) and not scope.endswith("/*"):
            draft.scopes.setdefault(scope, {})
    return found


def _number(value: str, place: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 9):  # noqa: PLR2004 - enough
        raise InvalidChangeError(f"{place}: token_lifetime_seconds: use a whole number")
    return int(value)


def _time(value: str, place: str) -> datetime:
    try:
        at = datetime.fromisoformat(value)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidChangeError(f"{place}: use a time such as 2030-01-31T12:00:00Z") from error


def _truth(value: str, place: str) -> bool:
    if value.lower() not in (*_TRUE, *_FALSE):
        raise InvalidChangeError(f"{place}: enabled: use true or false")
    return value.lower() in _TRUE
