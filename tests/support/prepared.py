"""The rows with which many test modules begin: made once in a run for each dialect, then copied.

To make the usual parties takes a third of a second; to copy their rows takes a hundredth.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from support.settings_file import holds_shared_secrets, write_shared_secrets

_AUDIT_FILE = "audit.jsonl"
#: Settings with which other rows would be made.
_DECIDING = frozenset({"audit", "keys"})
_Made = TypeVar("_Made")
#: The fixtures of the same names, in a test run.
_fixtures: dict[str, Callable[..., Any]] = {}


@pytest.fixture(scope="session", autouse=True)
def _prepared(fill_database, is_unused) -> Iterator[None]:
    """Let :func:`take_prepared` copy."""
    _fixtures.update(fill_database=fill_database, is_unused=is_unused)
    yield
    _fixtures.clear()


def take_prepared(
    url: str,
    folder: Path,
    overrides: Mapping[str, Any],
    name: str,
    make: Callable[[str, Path], _Made],
) -> _Made | None:
    """Fill an unused database, and the audit trail in its folder; return what `make` returns.

    `make` is a function of a database and a folder with the secrets of prepared databases. It is
    called once for each name and dialect. None, and nothing filled, if the rows have to be made:
    the database or the folder is used, or the overrides of the settings lead to other rows.
    """
    peppers = [each for each in overrides.get("clients", {}) if "pepper" in each]
    if not _fixtures or peppers or not _DECIDING.isdisjoint(overrides):
        return None
    write_shared_secrets(folder)
    audit_path = folder / _AUDIT_FILE
    if not holds_shared_secrets(folder) or audit_path.exists() or not _fixtures["is_unused"](url):
        return None
    made, records = _fixtures["fill_database"](url, name, partial(_fill, make))
    audit_path.write_text(records)
    return made


def _fill(make: Callable[[str, Path], _Made], url: str, folder: Path) -> tuple[_Made, str]:
    write_shared_secrets(folder)
    return make(url, folder), (folder / _AUDIT_FILE).read_text()
