"""The file of audit records, before anything is written to it."""

import errno
import os
from types import SimpleNamespace

import pytest

from authz_server.audit.destination import open_destination, require_destination
from authz_server.settings import SettingsError

RECORD = b'{"time":"2030-01-02T03:04:05.000Z","event":"server.started"}\n'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        RECORD,
        RECORD[:5],
        b"\n\n" + RECORD,
        RECORD + b"cut off",
        b'{"event":"server.started","time":"2030-01-02T03:04:05.000Z"}\n',
    ],
)
def test_a_file_of_records_is_opened_for_appending(tmp_path, content):
    """Case R241."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(content)
    require_destination(str(path))
    descriptor = open_destination(str(path))
    os.write(descriptor, RECORD)
    os.close(descriptor)
    assert path.read_bytes() == content + RECORD


@pytest.mark.parametrize(
    "content",
    [
        b"0123456789abcdef",
        b"SQLite format 3\0",
        b'{"keys":[]}',
        b"[server]\nport = 1",
        b" {}",
        b"\0",
    ],
)
def test_another_file_is_not_opened(tmp_path, content):
    """Case R241."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="something else than audit records"):
        require_destination(str(path))
    with pytest.raises(FileExistsError):
        open_destination(str(path))
    assert path.read_bytes() == content


@pytest.mark.parametrize(("user", "free"), [(0, "f_bfree"), (1_000, "f_bavail")])
def test_a_full_disk_is_refused_by_what_the_user_may_take(tmp_path, monkeypatch, user, free):
    """Case R241: some file systems reserve room for root."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(RECORD)
    room = {"f_blocks": 1_000, "f_bfree": 50, "f_bavail": 50}
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(**room))
    require_destination(str(path))
    room[free] = 0
    with pytest.raises(SettingsError, match=os.strerror(errno.ENOSPC)):
        require_destination(str(path))
