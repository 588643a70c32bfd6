"""A running server notices that the database lost a change, also without an audit file."""

from datetime import UTC, datetime, timedelta
from queue import SimpleQueue

import pytest
from sqlalchemy import delete, func, insert, select

from authz_server.app import EXTENSION, create_health_application
from authz_server.audit.models import AuditRecord
from authz_server.audit.restored_database import RestoredDatabaseError, RestoreReadiness
from authz_server.cli.serve import HealthService
from authz_server.database.schema import opened_database
from authz_server.settings import AuditSettings, load_settings
from support.ports import release_port, reserve_port
from support.settings_file import write_settings


class Watched:
    """A database with the readiness of a server that runs on it, which keeps no file."""

    def __init__(self, database) -> None:
        self.database, self._seconds = database, 0.0
        audit = AuditSettings(latest_change_file="")
        self._readiness = RestoreReadiness(database, audit, lambda: self._seconds)

    def require(self) -> None:
        """Check as soon as it is due again."""
        self._seconds += RestoreReadiness.BAD_SECONDS
        self._readiness.require()

    def latest(self) -> int:
        with self.database.reading() as session:
            return session.scalar(select(func.max(AuditRecord.id)))

    def take_rows(self, condition) -> list[dict]:
        """Delete rows that the server would keep; return them."""
        with self.database.transaction() as session:
            rows = session.execute(select(AuditRecord.__table__).where(condition))
            taken = [dict(row) for row in rows.mappings()]
            session.execute(delete(AuditRecord).where(condition))
        return taken

    def put_rows(self, rows) -> None:
        with self.database.transaction() as session:
            session.execute(insert(AuditRecord.__table__), rows)


class Workers:
    """In the place of the supervisor: its workers serve."""

    def require_serving(self) -> None:
        pass

    def degradations(self) -> list[str]:
        return []


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


@pytest.mark.parametrize(
    "altered",
    [{"action": "scope.changed", "actor": "somebody"}, {"at": datetime(2026, 1, 1, tzinfo=UTC)}],
    ids=["action", "time"],
)
def test_an_altered_change_is_not_lost(watched, altered):
    """`audit verify` names it; the server goes on."""
    (row,) = watched.take_rows(AuditRecord.id == watched.latest())
    watched.put_rows([row | altered])
    watched.require()


def test_the_same_change_made_again_does_not_hide_the_lost_one(watched):
    (row,) = watched.take_rows(AuditRecord.id == watched.latest())
    watched.put_rows([row | {"at": row["at"] + timedelta(seconds=1)}])
    with pytest.raises(RestoredDatabaseError, match="The database lost"):
        watched.require()


def test_a_reload_of_the_settings_forgets_no_change(cli, watched, tmp_path, monkeypatch):
    """The health listener has another application then."""
    made = SimpleQueue()

    def create(*arguments, **options):
        application = create_health_application(*arguments, **options)
        made.put(application)
        return application

    def failed(application):
        answer = application.test_client().get("/health/ready")
        application.extensions[EXTENSION].database.close()
        return answer.get_json()["failed"]

    monkeypatch.setattr("authz_server.cli.serve.create_health_application", create)
    monkeypatch.setattr("authz_server.cli.serve.configure_logging", lambda _: None)
    port = reserve_port()
    overrides = {"audit": {"destination": "stderr"}, "server": {"health_port": port}}
    settings = load_settings(write_settings(tmp_path, cli.database_url, overrides))
    health = HealthService(settings, tmp_path, Workers())
    try:
        assert "restored_database" not in failed(made.get(timeout=60))
        watched.take_rows(AuditRecord.id == watched.latest())
        health.apply(settings)
        assert "restored_database" in failed(made.get(timeout=60))
    finally:
        health.stop()
        release_port(port)


def test_the_check_says_that_it_has_no_file_to_compare_with(cli, prepare, tmp_path):
    prepare(cli, ("scope", "import", "g2p-connect"))
    audit = {"destination": "stderr", "latest_change_file": ""}
    config = write_settings(tmp_path, cli.database_url, {"audit": audit})
    done = cli.run("--config", str(config), "db", "check")
    assert done.exit_code == 0
    assert "noticed only by servers that ran meanwhile" in done.output
