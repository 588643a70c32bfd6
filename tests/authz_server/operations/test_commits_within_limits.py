"""What follows a commit of a caller with limits is not limited."""

from datetime import UTC, datetime

from sqlalchemy import func, select

from authz_server.audit.models import AuditRecord
from authz_server.audit.records import store_audit_record
from authz_server.operations.limited_services import limit_services
from authz_server.operations.permissions import Limits


class LatestChange:
    """In the place of the file: notes the highest number that its session finds."""

    def __init__(self) -> None:
        self.found: list[int | None] = []

    def keep(self, session, committed) -> None:
        assert [each.subject for each in committed] == ["payer"]
        self.found.append(session.scalar(select(func.max(AuditRecord.id))))


def test_the_latest_change_is_found_among_all_records(operator, monkeypatch):
    file = LatestChange()
    monkeypatch.setattr(operator.services, "latest_change", file)
    limited = limit_services(operator.services, Limits(resource_servers=frozenset({"mapper"})))
    with limited.database.transaction() as session:
        change = {"actor": "o", "action": "client.disabled", "subject": "payer"}
        store_audit_record(session, at=datetime.now(UTC), **change)
    with limited.database.reading() as session:
        assert session.scalar(select(func.max(AuditRecord.id))) is None, "it is not limited"
    with operator.services.database.reading() as session:
        assert file.found == [session.scalar(select(func.max(AuditRecord.id)))]
