"""Compiled statements, kept for all engines of a process.

Nearly every test has a database and so an engine of its own. SQLAlchemy keeps what it compiled for
one dialect object, so that each test compiled the same statements: a tenth of its processor time,
and a quarter where it runs commands.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Mapper
from sqlalchemy.util import HasMemoized, LRUCache

_STATEMENTS = 4_000
_STATEMENTS_OF_MAPPER = 300


class _Shared(LRUCache):
    """Takes dialects of the same kind, which talk to servers of the same version, for one."""

    def get(self, key: tuple, default: Any = None) -> Any:
        return super().get(_shared_key(key), default)

    def __getitem__(self, key: tuple) -> Any:
        return super().__getitem__(_shared_key(key))

    def __setitem__(self, key: tuple, value: Any) -> None:
        super().__setitem__(_shared_key(key), value)


def _shared_key(key: tuple) -> tuple:
    dialect, *statement = key
    version = getattr(dialect, "server_version_info", None)
    return (type(dialect), version, dialect.paramstyle, *statement)


@pytest.fixture(scope="session", autouse=True)
def _compiled_statements() -> Iterator[None]:
    """Give every engine and every mapper of this process the same memory."""
    shared, make_engine = _Shared(_STATEMENTS), Engine.__init__

    def make(engine: Engine, *arguments: Any, **options: Any) -> None:
        make_engine(engine, *arguments, **options)
        engine._compiled_cache = shared  # noqa: SLF001 - it has no public name

    # By this name the attribute is found again.
    def _compiled_cache(_: Mapper) -> _Shared:
        return _Shared(_STATEMENTS_OF_MAPPER)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "__init__", make)
        patch.setattr(Mapper, "_compiled_cache", HasMemoized.memoized_attribute(_compiled_cache))
        yield
