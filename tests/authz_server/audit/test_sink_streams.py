"""The audit sink on pipes and standard streams, whose reader may be gone or stuck."""

import contextlib
import json
import os
import time
from datetime import UTC, datetime

import pytest

from authz_server.audit.events import ServerStarted
from authz_server.audit.notifier import AuditUnavailable
from authz_server.audit.sink import AuditSink

AT = datetime(2030, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC)
STARTED = ServerStarted(version="1", issuer="i", process_id=1)


def test_a_reader_that_is_gone_means_not_recorded():
    """Case K125."""
    read, write = os.pipe()
    sink = AuditSink(f"/dev/fd/{write}", lambda: AT)
    os.close(read)
    os.close(write)
    with pytest.raises(AuditUnavailable):
        sink.write(STARTED)
    sink.close()


def test_a_reader_that_is_stuck_is_waited_for_one_second_only():
    """Case K125."""
    read, write = os.pipe()
    sink = AuditSink(f"/dev/fd/{write}", lambda: AT)
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(write, b"x" * 4_096):
            pass
    began = time.monotonic()
    with pytest.raises(AuditUnavailable) as caught:
        sink.write(STARTED)
    assert 0.9 < time.monotonic() - began < 15
    assert "stuck" in caught.value.detail
    # Requests that need no record wait for the first one alone.
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(AuditUnavailable):
            sink.write(STARTED)
    with pytest.raises(AuditUnavailable):
        sink.try_again()
    assert time.monotonic() - began < 10
    os.read(read, 65_536)
    sink.write(ServerStarted(version="after", issuer="i", process_id=1))
    assert b'"version":"after"' in os.read(read, 65_536 * 2)
    sink.close()
    os.close(read)
    os.close(write)


def test_a_file_that_cannot_be_opened_stops_the_start(tmp_path):
    """Case K125."""
    with pytest.raises(AuditUnavailable) as caught:
        AuditSink(str(tmp_path / "missing" / "audit.jsonl"), lambda: AT)
    assert "missing/audit.jsonl cannot be opened" in caught.value.detail


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_standard_stream_takes_records(stream, capfd):
    sink = AuditSink(stream, lambda: AT)
    sink.write(STARTED)
    sink.close()
    assert json.loads(getattr(capfd.readouterr(), stream[3:]))["event"] == "server.started"
