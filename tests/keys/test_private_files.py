"""Files with secrets, judged by owner and mode as PostgreSQL judges its key file."""

import os

import pytest

from keys.private_files import find_exposure

US, ROOT, OTHER = 1_000, 0, 1_001


def status_of(owner: int, mode: int) -> os.stat_result:
    return os.stat_result((0o100_000 | mode, 0, 0, 1, owner, 2_000, 0, 0, 0, 0))


CASES = [
    (US, 0o600, ""),
    (US, 0o400, ""),
    (US, 0o640, "open to others"),
    (US, 0o604, "open to others"),
    (US, 0o660, "open to others"),
    (ROOT, 0o600, ""),
    (ROOT, 0o640, ""),
    (ROOT, 0o440, ""),
    (ROOT, 0o644, "open to others"),
    (ROOT, 0o660, "open to others"),
    (ROOT, 0o650, "open to others"),
    (OTHER, 0o600, "neither this account nor root"),
    (OTHER, 0o640, "neither this account nor root"),
]


@pytest.mark.parametrize(("owner", "mode", "expected"), CASES)
def test_a_secret_file_is_judged_by_owner_and_mode(monkeypatch, owner, mode, expected):
    monkeypatch.setattr("os.geteuid", lambda: US)
    found = find_exposure(status_of(owner, mode))
    assert (found is None) if not expected else (expected in found.problem)


def test_for_root_its_own_files_are_its_own(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: ROOT)
    assert find_exposure(status_of(ROOT, 0o600)) is None
    assert find_exposure(status_of(ROOT, 0o640)).command == "chmod 600"
    assert find_exposure(status_of(OTHER, 0o600)).command == "chown 0"
