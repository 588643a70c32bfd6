"""Databases for tests: migrated once for each run and dialect, then copied.

A copy of PostgreSQL's is emptied after its test and serves the next one.
"""

import filecmp
import hashlib
import pickle
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.database_copies import DatabaseCopies, Fill
from support.postgresql_access import PostgresAccess, database_name
from support.shared_postgresql import exclusively, shared_postgresql

DIALECTS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgresql(run_directory: Path) -> Iterator[PostgresAccess]:
    """The PostgreSQL server of this run."""
    with shared_postgresql(run_directory) as access:
        yield access


@pytest.fixture(scope="session")
def sqlite_template(run_directory: Path) -> Path:
    """A migrated SQLite file; copy it, never open it."""
    template = run_directory / "template.sqlite"
    with exclusively(run_directory / "template.sqlite.lock"):
        if not template.exists():
            _migrate_sqlite_template(template)
    return template


@pytest.fixture(scope="session")
def postgresql_template(run_directory: Path, postgresql: PostgresAccess) -> str:
    """The name of a migrated PostgreSQL database that nobody may connect to, only copy."""
    note = run_directory / f"template.postgresql.{postgresql.port}"
    with exclusively(run_directory / "template.postgresql.lock"):
        if not note.exists():
            note.write_text(_migrate_postgresql_template(postgresql))
    return note.read_text()


@pytest.fixture(scope="session")
def postgresql_copies(
    postgresql: PostgresAccess, postgresql_template: str
) -> Iterator[DatabaseCopies]:
    """Copies of the migrated PostgreSQL database, of this worker process."""
    with DatabaseCopies(postgresql, postgresql_template) as copies:
        yield copies


@pytest.fixture(scope="session")
def fill_database(
    request: pytest.FixtureRequest, run_directory: Path, tmp_path_factory
) -> Callable[[str, str, Fill], Any]:
    """A function of the URL of an unused migrated database, a name, and what fills a database.

    It returns what `fill` returns, a function of a URL and a folder of its own. `fill` is called
    once in a run for each dialect and each name that it is given; its rows are copied afterwards.
    """
    known: dict[Path, tuple[Any, Any]] = {}

    def fill_database(url: str, name: str, fill: Fill) -> Any:
        is_sqlite = url.startswith("sqlite:")
        rows = _SqliteRows() if is_sqlite else request.getfixturevalue("postgresql_copies")
        digest = hashlib.sha256(f"{name} {_place_of(fill)}".encode()).hexdigest()
        path = run_directory / f"prepared.{DIALECTS[not is_sqlite]}.{digest}"
        if path not in known:
            with exclusively(path.with_suffix(".lock")):
                if not path.exists():
                    made = fill(url, tmp_path_factory.mktemp("filled"))
                    path.with_suffix(".draft").write_bytes(pickle.dumps((made, rows.read(url))))
                    path.with_suffix(".draft").rename(path)
                    return made
            known[path] = pickle.loads(path.read_bytes())  # noqa: S301 - of this run
        made, content = known[path]
        rows.write(url, content)
        return made

    return fill_database


def _place_of(fill: Callable[..., Any]) -> str:
    """Return where a function is defined, and those to which a partial one is bound."""
    if not isinstance(fill, partial):
        return f"{fill.__code__.co_filename} {fill.__qualname__}"
    return " ".join(map(_place_of, (fill.func, *filter(callable, fill.args))))


class _SqliteRows:
    """Reads and writes the whole content of an unused SQLite file."""

    def read(self, url: str) -> bytes:
        path = _sqlite_path(url)
        copy = path.with_suffix(".filled")
        _copy_sqlite(path, copy)
        content = copy.read_bytes()
        copy.unlink()
        return content

    def write(self, url: str, content: bytes) -> None:
        path = _sqlite_path(url)
        assert not path.with_name(f"{path.name}-wal").exists()
        path.write_bytes(content)


@pytest.fixture(scope="session")
def is_unused(request: pytest.FixtureRequest) -> Callable[[str], bool]:
    """A function of a URL: whether it is that of a migrated copy in which nothing was changed."""

    def is_unused(url: str) -> bool:
        if not url.startswith("sqlite:"):
            return request.getfixturevalue("postgresql_copies").is_unused(url)
        path, template = _sqlite_path(url), "sqlite_template"
        has_log = path.with_name(f"{path.name}-wal").exists()
        return not has_log and filecmp.cmp(path, request.getfixturevalue(template), shallow=False)

    return is_unused


@pytest.fixture
def sqlite_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated SQLite database of this test alone."""
    with copied_database(request, "sqlite", tmp_path) as url:
        yield url


@pytest.fixture
def postgresql_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated PostgreSQL database of this test alone."""
    with copied_database(request, "postgresql", tmp_path) as url:
        yield url


@pytest.fixture(params=DIALECTS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated database of this test alone; the test runs once for each dialect."""
    with copied_database(request, request.param, tmp_path) as url:
        yield url


@pytest.fixture(scope="module", params=DIALECTS)
def module_database_url(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[str]:
    """The URL of a migrated database that the tests of one file share, once for each dialect."""
    directory = tmp_path_factory.mktemp("database")
    with copied_database(request, request.param, directory) as url:
        yield url


@contextmanager
def copied_database(request: pytest.FixtureRequest, dialect: str, directory: Path) -> Iterator[str]:
    if dialect == "sqlite":
        path = directory / "authz-server.sqlite"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    copies = request.getfixturevalue("postgresql_copies")
    url = copies.take()
    yield url
    copies.give_back(url)


@pytest.fixture(params=DIALECTS)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without any table, for tests of the migrations themselves."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.sqlite'}"
        return
    postgresql = request.getfixturevalue("postgresql")
    url = postgresql.create_database()
    yield url
    postgresql.drop_database(url)


def _sqlite_path(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def _migrate_sqlite_template(template: Path) -> None:
    draft = template.with_suffix(".draft")
    _upgrade(f"sqlite:///{draft}")
    _copy_sqlite(draft, template)


def _copy_sqlite(draft: Path, template: Path) -> None:
    # Through SQLite's own copying, which takes along what is still in the write-ahead log.
    finished = template.with_suffix(".finished")
    with closing(sqlite3.connect(draft)) as source, closing(sqlite3.connect(finished)) as target:
        source.backup(target)
    finished.rename(template)


def _migrate_postgresql_template(postgresql: PostgresAccess) -> str:
    url = postgresql.create_database()
    _upgrade(url)
    postgresql.close_database(url)
    return database_name(url)


def _upgrade(url: str) -> None:
    # Imported here: only runs that need a database load it.
    from authz_server.database.schema import upgrade_database  # noqa: PLC0415
    from authz_server.settings import DatabaseSettings  # noqa: PLC0415

    upgrade_database(DatabaseSettings(url=url))
