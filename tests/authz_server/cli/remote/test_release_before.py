"""Commands at a server of the release before, which has no parts of answers and no numbers."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

# They fill the table.
from authz_server.cli.remote import records, stops  # noqa: F401
from authz_server.cli.remote.table import TABLE
from authz_server.errors import InvalidChangeError
from authz_server.operations.audit.who import find_who
from authz_server.operations.least_privilege import report_least_privilege
from authz_server.operations.reports import report_owners
from authz_server.operations.stops import plan_stop

_NOW = datetime(2030, 1, 1, tzinfo=UTC)


class _Before:
    """The admin API of the release before: it answers what it is given, and knows no parts."""

    def __init__(self, **answer: Any) -> None:
        self._answer = answer

    def answer(self, *_words: object, query: Mapping[str, object]) -> dict[str, Any]:
        if not query.keys() <= {"scope", "at", "days"}:
            raise InvalidChangeError("Object contains unknown field `limit`.")
        return self._answer

    def read(self, kind: type, *_words: object, **query: object) -> Any:
        assert not [name for name, value in query.items() if value is not None]
        return kind(**self._answer)

    def post(self, *_words: object, **_request: object) -> dict[str, Any]:
        return self._answer


def test_a_client_is_stopped():
    """An emergency."""
    before = _Before(
        kind="client",
        subject="x",
        scopes=["mapper/link"],
        clients=["x", "y"],
        resource_servers=["mapper"],
        in_force=None,
        in_force_since=None,
        complete=False,
    )
    planned = TABLE[plan_stop](before, "client", "x")
    assert (planned.clients, planned.client_count) == (("x", "y"), 2)


def test_who_could_use_a_scope():
    held = {"client_id": "x", "tokens": 1, "revoked": 0, "scopes": ["mapper/link"]}
    times = dict.fromkeys(("first_issued_at", "last_issued_at"), _NOW.isoformat())
    before = _Before(
        at=_NOW.isoformat(),
        scopes=["mapper/link"],
        could=[],
        unknown=["x", "y"],
        held=[held | times],
        files=[],
        destination="stdout",
        complete=False,
    )
    found = TABLE[find_who](before, "mapper/link", _NOW)
    assert (found.could_count, found.unknown_count, found.held_count) == (0, 2, 1)
    assert (found.unknown, found.next) == (("x", "y"), None)


def test_reports_are_made():
    lists = dict.fromkeys(("unused_scopes", "dormant_clients", "secrets_due"), ())
    before = _Before(since=_NOW.isoformat(), observed_since=None, **lists)
    assert TABLE[report_least_privilege](before, days=7).since == _NOW
    owners = _Before(scopes_without_server={}, callbacks_without_partner=())
    assert TABLE[report_owners](owners).scopes_without_server == {}
