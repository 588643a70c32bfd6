"""Files with secrets, judged by owner and mode as PostgreSQL judges its key file."""

import os
import threading

import pytest

from keys.backends.local.file import FileEncryptedKeyStorage
from keys.backends.vault.auth import make_login
from keys.backends.vault.http import VaultHttp
from keys.backends.vault.settings import VaultAccess, VaultLogin
from keys.errors import BackendDenied
from keys.events import ignore
from keys.private_files import find_exposure, open_regular

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


def outcome_of(act) -> Exception | None:
    """Return the error of a call that must end; one that hangs is left to its thread."""
    errors: list[Exception | None] = []

    def run() -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)
        else:
            errors.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert errors, "it waits for somebody who writes into the pipe"
    return errors[0]


@pytest.fixture
def pipe(tmp_path):
    """A named pipe into which nobody writes."""
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    return str(path)


def test_a_pipe_or_a_folder_is_no_file_and_is_not_waited_for(pipe, tmp_path):
    assert "not a regular file" in str(outcome_of(lambda: open_regular(pipe)))
    assert isinstance(outcome_of(lambda: open_regular(tmp_path)), IsADirectoryError)
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"content"


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        ("approle", "secret_id_file"),
        ("kubernetes", "jwt_file"),
        ("jwt", "jwt_file"),
        ("token", "token_file"),
        ("cert", "private_key_file"),
        ("cert", "certificate_file"),
    ],
)
def test_a_credential_that_becomes_a_pipe_is_refused_and_holds_up_no_login(pipe, method, setting):
    """The thread that waits for it holds the lock of every later login, until a restart."""
    others = {"certificate_file": "/dev/null"} if method == "cert" else {}
    usual = {"method": method, "role": "r", "role_id": "r"} | others
    access = VaultAccess(
        addresses=("https://127.0.0.1:1",), login=VaultLogin(method="token", token="t")
    )
    http = VaultHttp(access, ignore)
    own = VaultAccess(addresses=access.addresses, login=VaultLogin(**(usual | {setting: pipe})))
    http._access = own  # noqa: SLF001 - the file was a good one at the start
    error = outcome_of(lambda: make_login(own, ignore).log_in(http, 0.0))
    assert isinstance(error, BackendDenied)
    assert "not a regular file" in str(error)


def test_a_key_file_that_becomes_a_pipe_is_refused(pipe, tmp_path):
    path = tmp_path / pipe
    error = outcome_of(lambda: FileEncryptedKeyStorage(path).load("ring"))
    assert isinstance(error, BackendDenied)
