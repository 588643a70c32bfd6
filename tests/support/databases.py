"""Databases for tests: migrated once for each run and dialect, then copied.

A copy of PostgreSQL's is emptied after its test and serves the next one.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

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
def fill_database(request: pytest.FixtureRequest, tmp_path_factory) -> Callable[[str, Fill], None]:
    """A function of the URL of an unused migrated database and of what fills one.

    What fills it gets a URL and a folder of its own. It is called once in a process for each
    dialect, and its rows are copied afterwards.
    """
    templates: dict[Fill, Path] = {}

    def fill(url: str, fill: Fill) -> None:
        if not url.startswith("sqlite:"):
            copies = request.getfixturevalue("postgresql_copies")
            copies.fill(url, fill, tmp_path_factory.mktemp)
            return
        path = Path(url.removeprefix("sqlite:///"))
        if fill not in templates:
            folder = tmp_path_factory.mktemp("filled")
            fill(url, folder)
            _copy_sqlite(path, folder / "filled.sqlite")
            templates[fill] = folder / "filled.sqlite"
            return
        assert not path.with_name(f"{path.name}-wal").exists()
        shutil.copyfile(templates[fill], path)

    return fill


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
