"""Records by several filters, or of a few clients: how many rows are read for a page."""

from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, insert, text

from authz_server.audit.models import AuditRecord
from authz_server.clients.models import Client
from authz_server.operations import stored_records
from authz_server.operations.limited_services import limit_services
from authz_server.operations.permissions import Limits
from authz_server.operations.stored_records import RecordFilters, list_records
from support.rows_read import rows_read

AT = datetime(2030, 1, 1, tzinfo=UTC)
RECORDS = 20_000
ONE, OTHER = "operator:one", "operator:other"
#: How many rows a search may fetch for a page of ten: those of one filter that are found first, in
#: each of its alternatives, and the page.
FETCHED = 3_000


@pytest.fixture(scope="module")
def frequent(shared_operator):
    """An operator with records of one frequent scope, ring and action, by one actor."""
    shared = {"actor": ONE, "detail": {"scopes": ["mapper/link"], "ring": "es256"}}
    with shared_operator.services.transaction() as session:
        session.execute(
            insert(AuditRecord),
            [
                {
                    **shared,
                    "at": AT + timedelta(seconds=number),
                    "action": "client.updated" if number % 2 else "key.activated",
                    "subject": f"client-{number % 1_000:03}",
                }
                for number in range(RECORDS)
            ],
        )
        rare = {"actor": OTHER, "action": "operator.created", "subject": "x", "detail": {}}
        session.execute(insert(AuditRecord), [{**rare, "at": AT}])
        session.execute(insert(Client), [_client(number) for number in range(20)])
    with shared_operator.services.transaction() as session:
        session.execute(text("ANALYZE"))
    return shared_operator


def _client(number: int) -> dict:
    lists = ("default_scopes", "allowed_resource_servers", "permissions")
    return {
        "id": f"client-{number:03}",
        "kind": "client",
        "name": f"Client {number}",
        "organisation": "Office",
        "enabled": True,
        "authentication_method": "client_secret_basic",
        "grant_types": ["client_credentials"],
        "allowed_scopes": ["mapper/link"],
        **{name: [] for name in lists},
        "created_at": AT,
        "updated_at": AT,
    }


@contextmanager
def _fetched(operator):
    """Yield a list that grows by the rows that the database reads for each statement."""
    engine, seen = operator.services.database.engine, []

    def note(_connection, _cursor, statement, parameters, *_):
        seen.append((statement, parameters))

    counted = []
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield counted
    finally:
        event.remove(engine, "before_cursor_execute", note)
    counted += [rows_read(engine, *each) for each in seen if "audit_" in each[0]]


@pytest.mark.parametrize(
    "filters",
    [
        RecordFilters(scope="mapper/link", actor=OTHER),
        RecordFilters(scope="mapper/link", actor="nobody"),
        RecordFilters(ring="es256", subject="x"),
        RecordFilters(action="client.", actor=OTHER),
        RecordFilters(action="client.updated", actor="nobody"),
        RecordFilters(action="operator.", actor=ONE),
        RecordFilters(action="operator."),
        RecordFilters(action="stop."),
        RecordFilters(action="key.activated", scope="mapper/link"),
        RecordFilters(client="client-007", scope="mapper/link"),
    ],
    ids=repr,
)
def test_the_records_of_a_frequent_name_are_not_read_for_those_of_a_rare_one(frequent, filters):
    """Whichever of the filters is the rare one, and also where no record has both."""
    with _fetched(frequent) as fetched:
        found = list_records(frequent.services, filters, before=None, limit=10)
    wanted = [("operator.created", "x")] if filters == RecordFilters(action="operator.") else []
    if filters.client:
        assert [each.subject for each in found] == ["client-007"] * 10
    else:
        assert [(each.action, each.subject) for each in found] == wanted
    assert sum(fetched) < FETCHED, fetched


def test_the_records_after_a_period_are_not_read_for_a_name(frequent):
    """On whichever of the tables the database begins."""
    filters = RecordFilters(scope="mapper/link", until=AT + timedelta(seconds=2_000))
    with _fetched(frequent) as fetched:
        found = list_records(frequent.services, filters, before=None, limit=10)
    assert len(found) == 10
    # An hour for clocks that differ.
    assert sum(fetched) < 2 * (3_600 + 2_000), fetched


def test_a_page_is_the_same_whether_few_are_found_first_or_not(frequent, monkeypatch):
    """Of each combination of filters, page by page."""
    combinations = [
        RecordFilters(scope="mapper/link", actor=ONE, action="client.updated"),
        RecordFilters(client="client-007", scope="mapper/link"),
        RecordFilters(action="key.", ring="es256", until=AT + timedelta(seconds=500)),
        RecordFilters(subject="client-007", action="client.", actor=ONE),
        RecordFilters(action="key.", since=AT + timedelta(seconds=19_000)),
    ]

    def pages():
        for filters in combinations:
            before = None
            for _ in range(4):
                found = list_records(frequent.services, filters, before=before, limit=7)
                yield found
                before = found[-1].id if found else None

    first = list(pages())
    assert all(first[::4])
    monkeypatch.setattr(stored_records, "_FEW", -1)
    assert list(pages()) == first
    monkeypatch.setattr(stored_records, "_FEW", 10 * RECORDS)
    assert list(pages()) == first


@pytest.mark.parametrize(
    "filters",
    [RecordFilters(), RecordFilters(action="client.updated"), RecordFilters(scope="mapper/link")],
    ids=repr,
)
def test_a_caller_with_few_clients_reads_the_records_of_these(frequent, filters):
    """And not those of all others that are newer than theirs."""
    limits = Limits(organisations=frozenset({"Office"}))
    few = replace(frequent, services=limit_services(frequent.services, limits, only_reads=True))
    with _fetched(few) as fetched:
        found = list_records(few.services, filters, before=None, limit=10)
    assert {each.subject for each in found} == {f"client-{each:03}" for each in range(1, 20, 2)}
    assert {each.action for each in found} == {"client.updated"}
    second = list_records(few.services, filters, before=found[-1].id, limit=10)
    assert max(each.id for each in second) < found[-1].id
    # 20 each of 20 clients, some of them twice.
    assert sum(fetched) < FETCHED, fetched
