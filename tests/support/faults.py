"""A database that a test can take away from the application and give back."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from sqlalchemy import make_url

from support.postgresql_access import PostgresAccess
from support.tcp_proxy import TcpProxy


class FaultyDatabase:
    """`url` leads the application to a database; `fault(name)` is a block in which it is away.

    Faults of SQLite: `removed` (the file is moved away and later put back) and `replaced` (another
    file, without tables, lies in its place). Of PostgreSQL: `refused` (connections are reset) and
    `silent` (nothing comes back).
    """

    def __init__(self, url: str, faults: dict[str, Callable]) -> None:
        self.url, self._faults = url, faults

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """Take the database away for as long as the block lasts."""
        with self._faults[name]():
            yield


SQLITE_FAULTS = ("removed", "replaced")
POSTGRESQL_FAULTS = ("refused", "silent")


@contextmanager
def faulty_sqlite(url: str) -> Iterator[FaultyDatabase]:
    """Give access to a SQLite database that can be taken away."""
    path = Path(make_url(url).database or "")
    faults = {
        "removed": lambda: _moved_away(path),
        "replaced": lambda: _replaced(path),
    }
    yield FaultyDatabase(url, faults)


@contextmanager
def faulty_postgresql(url: str, access: PostgresAccess) -> Iterator[FaultyDatabase]:
    """Give access to a PostgreSQL database behind a network that can be cut."""
    with ExitStack() as stack:
        proxy = stack.enter_context(TcpProxy(access.port))
        through = make_url(url).set(port=proxy.port).render_as_string(hide_password=False)
        faults = {
            "refused": lambda: _away(proxy, proxy.refuse),
            "silent": lambda: _away(proxy, proxy.silence),
        }
        yield FaultyDatabase(through, faults)


@contextmanager
def _away(proxy: TcpProxy, begin: Callable[[], None]) -> Iterator[None]:
    begin()
    try:
        yield
    finally:
        proxy.heal()


@contextmanager
def _moved_away(path: Path) -> Iterator[None]:
    """Move the file away with what lies beside it, and put it back."""
    away = path.with_name("away")
    away.mkdir()
    parts = [part for part in path.parent.glob(f"{path.name}*") if part.is_file()]
    for part in parts:
        part.rename(away / part.name)
    try:
        yield
        assert not path.exists(), "an empty database was made where there was none"
    finally:
        for part in path.parent.glob(f"{path.name}*"):
            part.unlink()
        for part in parts:
            (away / part.name).rename(part)
        away.rmdir()


@contextmanager
def _replaced(path: Path) -> Iterator[None]:
    with _moved_away(path):
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE stranger (id INTEGER)")
        try:
            yield
        finally:
            for part in path.parent.glob(f"{path.name}*"):
                part.unlink()
