from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import event, select

from authz_server.assembly.operator import OperatorServices, operator_services
from authz_server.audit.models import AuditRecord
from authz_server.operations.scopes import import_g2p_connect
from authz_server.settings import load_settings
from support.settings_file import write_settings

ACTOR = "operator:tester"


@dataclass
class Operator:
    """The parts of an operator on a database with the scopes of G2P Connect, and the actor."""

    services: OperatorServices
    actor: str = ACTOR

    def records(self) -> list[tuple[str, str, str]]:
        """Return (actor, action, subject) of every stored record but those of the import."""
        columns = (AuditRecord.actor, AuditRecord.action, AuditRecord.subject)
        with self.services.transaction() as session:
            rows = session.execute(select(*columns).order_by(AuditRecord.id)).all()
        return [tuple(row) for row in rows if row.actor != "operator:importer"]

    @contextmanager
    def statements(self) -> Iterator[list[str]]:
        """Yield a list that grows by every statement until the block ends."""
        seen: list[str] = []

        def note(_connection, _cursor, statement, *_) -> None:
            seen.append(statement)

        engine = self.services.database.engine
        event.listen(engine, "before_cursor_execute", note)
        yield seen
        event.remove(engine, "before_cursor_execute", note)


def _import_g2p_connect(url: str, folder: Path) -> None:
    with operator_services(load_settings(write_settings(folder, url, {}))) as services:
        import_g2p_connect(services, actor="operator:importer")


@contextmanager
def _operator(folder: Path, database_url: str) -> Iterator[Operator]:
    settings = load_settings(write_settings(folder, database_url, {}))
    with operator_services(settings) as services:
        yield Operator(services)


@pytest.fixture
def operator(database_url, fill_database, tmp_path):
    """An operator on each database."""
    fill_database(database_url, "operations", _import_g2p_connect)
    with _operator(tmp_path, database_url) as operator:
        yield operator


@pytest.fixture(scope="module")
def shared_operator(module_database_url, fill_database, tmp_path_factory):
    """As `operator`, for all tests of a file that change nothing."""
    fill_database(module_database_url, "operations", _import_g2p_connect)
    with _operator(tmp_path_factory.mktemp("operator"), module_database_url) as operator:
        yield operator
