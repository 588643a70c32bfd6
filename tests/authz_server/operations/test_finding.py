"""Finding records and clients: by index where there are many, and page by page."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, insert, text, update

from authz_server.audit.models import AUDIT_NAME, AuditRecord
from authz_server.audit.stored_rows import UNKNOWN_TIME
from authz_server.clients.models import Client, ClientSecret
from authz_server.operations.client_search import ClientFilters, find_clients
from authz_server.operations.clients import create_client
from authz_server.operations.limited_services import limit_services
from authz_server.operations.permissions import Limits
from authz_server.operations.stored_records import RecordFilters, list_records
from authz_server.scopes.uses import ScopeUse

AT = datetime(2030, 1, 1, tzinfo=UTC)
#: The database makes the rows itself, each of a second of its own.
RECORDS = """
WITH RECURSIVE numbers(n) AS (
    SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n < {first} + 4999
)
INSERT INTO audit_record (at, actor, action, subject, detail)
SELECT {at}, 'operator:' || (n % 1000), 'client.action_' || (n % 5000), 'client-' || (n % 10000),
    {detail}
FROM numbers
"""
MOMENTS = {
    "sqlite": "datetime('2030-01-01', n || ' seconds') || '.000000'",
    "postgresql": "timestamptz '2030-01-01 00:00+00' + make_interval(secs => n)",
}
DETAILS = {
    "sqlite": "json_object('ring', 'ring-' || (n % 1000))",
    "postgresql": "json_build_object('ring', 'ring-' || (n % 1000))",
}


@pytest.fixture(scope="module")
def many(shared_operator):
    """100,000 records of 10,000 subjects, 1,000 actors and rings, and 5,000 actions."""
    database = shared_operator.services.database
    dialect = database.engine.dialect.name
    values = {"at": MOMENTS[dialect], "detail": DETAILS[dialect]}
    for first in range(0, 100_000, 5_000):
        with database.transaction() as session:
            session.execute(text(RECORDS.format(first=first, **values)))
    with database.transaction() as session:
        session.execute(text("ANALYZE"))
    return shared_operator


def plan_of(operator, filters):
    """Return the plans of the queries that list records."""
    seen = []

    def note(_connection, _cursor, statement, parameters, *_):
        seen.append((statement, parameters))

    engine = operator.services.database.engine
    event.listen(engine, "before_cursor_execute", note)
    found = list_records(operator.services, filters, before=None, limit=100)
    event.remove(engine, "before_cursor_execute", note)
    word = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    with engine.connect() as connection:
        lines = [
            line
            for statement, parameters in seen
            for line in connection.exec_driver_sql(f"{word} {statement}", parameters)
        ]
    return found, "\n".join(str(line) for line in lines)


def test_a_search_of_100_000_records_reads_an_index(many):
    """Whatever filter is used, the table is not read from its beginning to its end."""
    for filters, index in (
        (RecordFilters(subject="client-7"), "ix_audit_record_subject_id"),
        (RecordFilters(actor="operator:7"), "ix_audit_record_actor_id"),
        (RecordFilters(action="client.action_7"), "ix_audit_record_action_id"),
        (RecordFilters(client="client-7"), "ix_audit_record_subject_id"),
        (RecordFilters(key="client-7"), "ix_audit_record_subject_id"),
        (RecordFilters(ring="ring-7"), "audit_name"),
        (RecordFilters(ring="ring-7", actor="operator:7"), "audit_name"),
        (RecordFilters(ring="no-ring"), "ix_audit_record_subject_id"),
        (RecordFilters(scope="mapper/link"), "ix_audit_record_subject_id"),
        (
            RecordFilters(since=AT, until=AT + timedelta(seconds=9)),
            "ix_audit_record_at",
        ),
    ):
        found, plan = plan_of(many, filters)
        assert found or filters.ring == "no-ring", filters
        assert index in plan, (filters, plan)
        # The names in records and the records.
        assert not re.search(r"Seq Scan on audit|SCAN audit", plan), (filters, plan)
        assert [each.id for each in found] == sorted((each.id for each in found), reverse=True)


def test_records_of_a_period_are_read_by_their_numbers(many):
    """Those after a time are not read one by one, also for a further filter; nor those before."""
    for begin, end in ((50_000, 50_009), (None, 9), (99_991, None), (-9, 0), (200_000, 300_000)):
        period = {
            name: AT + timedelta(seconds=each)
            for name, each in (("since", begin), ("until", end))
            if each is not None
        }
        seconds = range(max(begin or 0, 0), min(100_000 if end is None else end, 100_000))
        if begin == 99_991:
            seconds = range(99_991, 100_000)
        for more in ({}, {"ring": "ring-5"}):
            found, plan = plan_of(many, RecordFilters(**period, **more))
            named = [each for each in found if each.actor.startswith("operator:")]
            at = [(each.at - AT) // timedelta(seconds=1) for each in named if each.at >= AT]
            wanted = [each for each in reversed(seconds) if not more or each % 1_000 == 5]
            assert at == wanted, (period, more)
            assert "ix_audit_record_at" in plan, plan
            if many.services.database.engine.dialect.name == "sqlite" and more:
                assert "record_id>?" in plan or "record_id<?" in plan, plan


def test_records_with_a_wrong_time_hide_no_others_of_a_period(operator):
    """Neither one that is ahead by less than an hour, nor many of a clock that was years off."""
    distant, second = datetime(2100, 1, 1, tzinfo=UTC), timedelta(seconds=1)
    stored = [
        *(("late", distant + number * second) for number in range(150)),
        ("ahead", AT),
        *(("right", AT - timedelta(minutes=50) + number * second) for number in range(200)),
        *(("early", UNKNOWN_TIME + number * second) for number in range(1, 150)),
    ]
    never = datetime.max.replace(tzinfo=UTC)
    facts = {"actor": "a", "action": "client.updated", "detail": {}}
    with operator.services.database.transaction() as session:
        rows = [{"at": at, "subject": subject, **facts} for subject, at in stored]
        session.execute(insert(AuditRecord), rows)
    for period in (
        {"since": AT},
        {"since": UNKNOWN_TIME},
        {"until": distant + timedelta(hours=1)},
        {"since": AT - timedelta(hours=1), "until": AT + second},
        {"until": UNKNOWN_TIME + timedelta(days=1)},
    ):
        filters = RecordFilters(actor="a", **period)
        found = list_records(operator.services, filters, before=None, limit=1_000)
        since, until = period.get("since", UNKNOWN_TIME), period.get("until", never)
        wanted = [
            subject for subject, at in reversed(stored) if since <= at < until.replace(tzinfo=UTC)
        ]
        assert [each.subject for each in found] == wanted, period


def test_a_time_beyond_the_calendar_ends_no_period(many):
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    found, _ = plan_of(many, RecordFilters(since=first, until=last, ring="ring-7"))
    assert len(found) == 100


def test_a_name_that_no_trigger_saw_removed_refuses_no_change(operator):
    """As after TRUNCATE, when the numbers of records begin again."""
    name = {"kind": "ring", "name": "b", "record_id": 1_000}
    with operator.services.transaction() as session:
        session.execute(insert(AUDIT_NAME), [name])
        facts = {"actor": "a", "action": "key.activated", "subject": "k", "detail": {"ring": "b"}}
        session.add(AuditRecord(id=1_000, at=AT, **facts))
    found = list_records(operator.services, RecordFilters(ring="b"), before=None, limit=9)
    assert [each.id for each in found] == [1_000]


@pytest.mark.parametrize("module_database_url", ["sqlite"], indirect=True)
def test_sqlite_neither_sorts_nor_reads_the_records_of_all_alternatives(many):
    """Each alternative of a client or a scope is read in the order of an index, up to the page."""
    for filters in (
        RecordFilters(client="client-7"),
        RecordFilters(scope="mapper/link"),
        RecordFilters(ring="ring-7"),
    ):
        _, plan = plan_of(many, filters)
        assert "MULTI-INDEX OR" not in plan, plan
        # Those of one name are not sorted.
        by_name = plan.split("USING PRIMARY KEY (kind=? AND name=?)")
        assert len(by_name) > 1, plan
        assert not any("TEMP B-TREE" in each.split("ix_")[0] for each in by_name[1:]), plan
    _, plan = plan_of(many, RecordFilters(jti="client-7"))
    assert "ix_audit_record_subject_id" in plan, plan
    office = limit_services(
        many.services, Limits(organisations=frozenset({"none"})), only_reads=True
    )
    few = replace(many, services=office)
    for filters in (
        RecordFilters(action="client.action_7"),
        RecordFilters(actor="operator:7"),
        RecordFilters(client="client-7"),
    ):
        _, plan = plan_of(few, filters)
        assert "ix_audit_record_action_id" not in plan, plan
        assert "ix_audit_record_actor_id (actor=? AND id" not in plan, plan


def test_clients_are_found_by_scope_last_use_and_end_of_a_secret(operator):
    now = datetime.now(UTC)
    for name, scope in (("a-payer", "disburse/disburse"), ("b-reader", "mapper/link")):
        create_client(
            operator.services,
            actor=operator.actor,
            id=name,
            name=name.title(),
            organisation="Treasury",
            allowed_scopes=[scope],
        )
    with operator.services.database.transaction() as session:
        session.execute(update(Client).values(created_at=now - timedelta(days=100)))
        of_payer = update(ClientSecret).where(ClientSecret.client_id == "a-payer")
        session.execute(of_payer.values(last_used_at=now, expires_at=now + timedelta(days=10)))

    def ids(sort="id", descending=False, **filters):  # noqa: FBT002 - as find_clients
        found = find_clients(
            operator.services, ClientFilters(**filters), sort=sort, descending=descending
        )
        return [each.id for each in found.clients]

    assert ids(text="DISBURSE") == ["a-payer"]
    with operator.services.database.transaction() as session:
        named = update(Client).where(Client.id == "b-reader")
        session.execute(named.values(organisation="Élève [1] de la Régión"))
    for part in ("éLÈVE [1]", "ÉLÈVE", "élève", "RÉGIÓN", "é"):
        assert ids(text=part) == ["b-reader"], part
    assert ids(text="élève ?1]") == ids(text="è*") == ids(text="eleve") == []
    assert ids(text="disburse", text_in_scopes=False) == []
    assert ids(unused_since=now - timedelta(days=30)) == ["b-reader"]
    assert ids(unused_since=now - timedelta(days=200)) == []
    assert ids(secret_ends_before=now + timedelta(days=30)) == ["a-payer"]
    assert ids(secret_ends_before=now + timedelta(days=5)) == []
    for sort in ("id", "name", "organisation", "created"):
        assert ids(sort) == ["a-payer", "b-reader"]
        assert ids(sort, descending=True) == ["b-reader", "a-payer"]
    assert ids("last-used") == ["b-reader", "a-payer"]
    with operator.services.database.transaction() as session:
        session.execute(of_payer.values(last_used_at=now - timedelta(days=40)))
        of_reader = update(ClientSecret).where(ClientSecret.client_id == "b-reader")
        session.execute(of_reader.values(last_used_at=now - timedelta(days=1)))
        scope = {"client_id": "a-payer", "scope": "disburse/disburse", "kind": "asked"}
        session.add(ScopeUse(**scope, first_at=now, last_at=now))
    # By the latest use of all, which the list shows.
    assert ids("last-used") == ["b-reader", "a-payer"]
    assert ids("last-used", descending=True) == ["a-payer", "b-reader"]
    page = find_clients(operator.services, ClientFilters(), offset=1, limit=1)
    assert (page.total, [each.id for each in page.clients]) == (2, ["b-reader"])
    assert page.clients[0].last_used_at == now - timedelta(days=1)
