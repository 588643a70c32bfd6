"""The records of signatures that are compared with the audit log of a Vault."""

import json

import pytest

from authz_server.operations.keys.reconciliation import Period, reconcile
from keys.backends.vault.audit_log import AuditLogReader

RECORD = {
    "time": "2030-01-02T03:04:05.678Z",
    "event": "token.issued",
    "kid": "a",
    "backend_request_id": "b",
}


@pytest.mark.parametrize(
    "changed",
    [{"event": []}, {"event": {}}, {"backend_request_id": [], "x": {"backend_request_id": "c"}}],
    ids=repr,
)
def test_a_line_that_is_no_record_is_left_out(tmp_path, changed):
    """The other lines of the file are still compared."""
    records = tmp_path / "audit.jsonl"
    lines = (json.dumps(each, separators=(",", ":")) for each in (RECORD | changed, RECORD))
    records.write_text("\n".join(lines))
    reader = AuditLogReader(frozenset(), "")
    assert reconcile(reader, [], [records], Period()).recorded == 1
