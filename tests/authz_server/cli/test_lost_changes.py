"""A running server notices that the database lost a change, also without an audit file."""

import pytest
from sqlalchemy import delete, func, insert, select

from authz_server.audit.models import AuditRecord
from authz_server.audit.restored_database import RestoredDatabaseError, RestoreReadiness
from authz_server.database.schema import opened_database
from authz_server.settings import load_settings
from support.settings_file import write_settings


class Watched:
    """A database with the readiness of a server that runs on it, whose records go to a stream."""

    def __init__(self, database) -> None:
        self.database, self._seconds = database, 0.0
        self._readiness = RestoreReadiness(database, "stderr", lambda: self._seconds)

    def require(self) -> None:
        """Check as soon as it is due again."""
        self._seconds += RestoreReadiness.BAD_SECONDS
        self._readiness.require()

    def latest(self) -> int:
        with self.database.reading() as session:
            return session.scalar(select(func.max(AuditRecord.id)))

    def take_rows(self, condition) -> list[dict]:
        """Delete rows as nobody else does; return them."""
        with self.database.transaction() as session:
            rows = session.execute(select(AuditRecord.__table__).where(condition))
            taken = [dict(row) for row in rows.mappings()]
            session.execute(delete(AuditRecord).where(condition))
        return taken

    def put_rows(self, rows) -> None:
        with self.database.transaction() as session:
            session.execute(insert(AuditRecord.__table__), rows)


@pytest.fixture
def watched(cli, prepare):
    prepare(
        cli,
        ("scope", "import", "g2p-connect"),
        ("client", "create", "payer", "--name", "Payer", "--scope", "mapper/link"),
    )
    with opened_database(load_settings(cli.config).database) as database:
        made = Watched(database)
        made.require()
        yield made


def test_a_lost_change_is_named_until_all_tokens_are_revoked(cli, watched):
    """A copy put in place under a running server, or a standby that lagged behind.

    Case Q224.
    """
    latest = watched.latest()
    cli.must("revoke", "--client", "payer", "--yes")
    watched.require()
    watched.take_rows(AuditRecord.id > latest)
    for _ in range(2):
        with pytest.raises(RestoredDatabaseError, match="of client:payer at"):
            watched.require()
    cli.must("scope", "add", "land/read")
    with pytest.raises(RestoredDatabaseError, match="revoke --before now"):
        watched.require()
    cli.must("revoke", "--before", "now", "--yes")
    watched.require()


def test_another_change_under_the_id_of_a_lost_one_does_not_hide_it(cli, watched):
    cli.must("revoke", "--client", "payer", "--yes")
    watched.require()
    (lost,) = watched.take_rows(AuditRecord.id == watched.latest())
    cli.must("scope", "add", "land/read")
    (other,) = watched.take_rows(AuditRecord.id == watched.latest())
    watched.put_rows([other | {"id": lost["id"]}, other | {"id": lost["id"] + 1}])
    with pytest.raises(RestoredDatabaseError, match="of client:payer at"):
        watched.require()


def test_purged_changes_are_not_lost(cli, watched):
    """The oldest rows are deleted first, and the latest one is kept."""
    seen = watched.latest()
    cli.must("scope", "add", "land/read")
    watched.take_rows(AuditRecord.id <= seen)
    watched.require()
    watched.require()


def test_an_altered_change_is_not_lost(watched):
    """`audit verify` names it; the server goes on."""
    (row,) = watched.take_rows(AuditRecord.id == watched.latest())
    watched.put_rows([row | {"action": "scope.changed", "actor": "somebody"}])
    watched.require()


def test_the_check_says_that_it_has_no_file_to_compare_with(cli, prepare, tmp_path):
    """By default audit records go to standard error."""
    prepare(cli, ("scope", "import", "g2p-connect"))
    config = write_settings(tmp_path, cli.database_url, {"audit": {"destination": "stderr"}})
    done = cli.run("--config", str(config), "db", "check")
    assert done.exit_code == 0
    assert "noticed only by servers that ran meanwhile" in done.output
