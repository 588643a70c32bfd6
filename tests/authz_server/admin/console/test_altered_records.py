"""Rows of audit records that somebody altered: what can be read is shown, with all others."""

from datetime import timedelta

import pytest
from sqlalchemy import text, update

from authz_server.audit.models import AuditRecord
from authz_server.audit.stored_rows import UNREADABLE_FACT
from authz_server.operations.audit.search import iterate_records
from authz_server.operations.audit.who import find_who
from authz_server.operations.stored_records import RecordFilters, list_records

DEEP = "[" * 3_000 + "]" * 3_000
VALUES = ["'x'", "x'00'", "x'6162'", "CAST(x'ff' AS TEXT)", f"'{DEEP}'", '\'{"a": "\\ud800"}\'']

#: PostgreSQL stores no value of another type.
pytestmark = pytest.mark.parametrize("module_database_url", ["sqlite"], indirect=True)


@pytest.fixture
def altered(console):
    """Alters a column of the first record of a client; every change is undone, for the others."""
    database = console.site.services.database
    client_id = console.site.new_client("Altered")["id"]
    console.site.change("POST", f"/clients/{client_id}/disable", {}, item=f"/clients/{client_id}")
    names = ("at", "actor", "action", "subject", "detail")
    with database.reading() as session:
        query = text("SELECT min(id) FROM audit_record WHERE subject = :id")
        number = session.scalar(query, {"id": client_id})

    def alter(column, value):
        with database.transaction() as session:
            connection = session.connection()
            connection.exec_driver_sql(
                f"UPDATE audit_record SET {column} = {value} WHERE id = {number}"  # noqa: S608
            )
        return number, client_id

    with database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE kept AS SELECT * FROM audit_record")
    yield alter
    with database.engine.begin() as connection:
        kept = ", ".join(f"{name} = kept.{name}" for name in names)
        connection.exec_driver_sql(
            f"UPDATE audit_record SET {kept} FROM kept WHERE audit_record.id = kept.id"  # noqa: S608
        )
        connection.exec_driver_sql("DROP TABLE kept")


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
@pytest.mark.parametrize("column", ["at", "actor", "action", "subject", "detail"])
def test_an_altered_row_ends_no_reading(console, altered, column, value):
    """The list, the search, the export, the console, and who could use a scope."""
    site = console.site
    number, client_id = altered(column, value)
    items = {each["id"]: each for each in site.get("/audit?limit=100").json["items"]}
    assert items[number]["subject"] == client_id or column == "subject"
    if value.startswith(("x", "CAST")) or column == "at":
        assert items[number]["detail"][UNREADABLE_FACT] == [column]
    for path in (
        "/audit?limit=100",
        "/audit/search?limit=100",
        "/audit?ring=es256",
        f"/audit/search?client={client_id}",
        "/audit/who?scope=mapper/link&at=2999-01-01T00:00:00Z",
        "/audit/who?scope=mapper/link&at=2000-01-01T00:00:00Z",
        "/audit/verify",
    ):
        assert site.get(path).status_code == 200, path
    for path in ("/audit", "/audit?of=all", "/audit/export?format=csv", "/keys"):
        assert console.get(path).status_code == 200, path
    found = list(iterate_records(site.services, RecordFilters()))
    stored = [each.at for each in found if each.source == "stored"]
    assert len(stored) > 5
    assert stored == sorted(stored, reverse=True)


def test_a_client_of_an_altered_record_is_not_known(console, altered):
    """Who could use a scope is read from the facts of later changes."""
    services = console.site.services
    _, client_id = altered("actor", "actor")
    records = list_records(services, RecordFilters(subject=client_id), before=None, limit=100)
    disabled, created = records[0], records[-1]
    assert disabled.action == "client.disabled"
    at = created.at + timedelta(minutes=1)

    def alter(**values):
        with services.database.transaction() as session:
            session.execute(update(AuditRecord).where(AuditRecord.id == disabled.id).values(values))

    alter(at=created.at + timedelta(hours=1))
    could = find_who(services, "mapper/link", at)
    assert client_id in {each.client_id for each in could.could}
    alter(detail=text("x'00'"))
    who = find_who(services, "mapper/link", at)
    assert client_id in who.unknown
    assert len(who.could) == len(could.could) - 1
    alter(detail={})
