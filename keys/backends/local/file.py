"""The local backend with one file: ``file:///absolute/path`` or ``file://relative/path``.

For a single machine that keeps keys out of the database. The file is JSON and holds the rings'
private keys, each in an envelope with the server's key-encryption key. It belongs to one account
(mode 0600). It is created with its first key and replaced as a whole at each change, under a lock
on an empty file with the suffix ``.lock``. The folder must exist, on a file system with flock(2).
"""

import fcntl
import json
import os
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from keys.backend import KeyBackend
from keys.backends.local.backend import LocalBackend
from keys.backends.local.storage import EncryptedKey
from keys.backends.registry import BackendContext
from keys.errors import (
    BackendBroken,
    BackendDenied,
    BackendUnavailable,
    KeysError,
    TokenRefusedError,
)
from keys.jose.compact import parse_json_object
from keys.private_files import NotRegularError, find_exposure, open_regular

FORMAT = 1
OWNER_ONLY = 0o600
RETRY_AFTER_SECONDS = 5
_SCHEME = "file://"


def open_backend(uri: str, context: BackendContext) -> KeyBackend:
    """Return the backend for the file that ``uri`` names.

    Raises:
        KeysError: the URI names no file in an existing folder, others can read the file, or there
            is no key-encryption key.
    """
    path = Path(uri.removeprefix(_SCHEME))
    if not uri.startswith(_SCHEME) or not path.name or set(uri) & set("?#%\0"):
        raise KeysError(f"a key file is named 'file:///path', without ?, # and %: not {uri!r}")
    if not path.parent.is_dir():
        raise KeysError(f"the folder of the key file {path} does not exist")
    if context.key_encryption_key is None:
        raise KeysError(f"the key file {path} needs a key-encryption key")
    storage = FileEncryptedKeyStorage(path)
    storage.find_newest()
    return FileBackend(
        storage,
        context.key_encryption_key,
        context.clock,
        experimental=context.experimental,
    )


class FileBackend(LocalBackend):
    """The local backend with the scheme ``file``."""

    scheme = "file"


class FileEncryptedKeyStorage:
    """Encrypted private keys in one file (``keys.backends.local.storage.EncryptedKeyStorage``).

    Safe for threads and for processes of one machine. In addition to the interface, every method
    raises BackendDenied if the file is open to others, and BackendBroken if it is damaged.

    Args:
        path: the file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        # Independent of later changes of the working folder and of links.
        self._path = path.resolve()

    def load(self, ring: str) -> tuple[EncryptedKey, ...]:
        """Return every version of ``ring``, lowest first."""
        held = [key for key in self._read() if key.ring == ring]
        return tuple(sorted(held, key=lambda key: key.version))

    def find_newest(self) -> EncryptedKey | None:
        """Return the key that was created last, of any ring; None if there is none."""
        return max(self._read(), key=lambda key: (key.created_at, key.version), default=None)

    def add(self, key: EncryptedKey) -> bool:
        """Store ``key``; return False, with nothing stored, if its version or kid is taken."""
        with self._locked():
            held = self._read()
            taken = {(other.ring, other.version) for other in held}
            if (key.ring, key.version) in taken or key.kid in {other.kid for other in held}:
                return False
            self._replace((*held, key))
            return True

    def delete_below(self, ring: str, version: int) -> None:
        """Delete every version of ``ring`` below ``version``."""
        with self._locked():
            held = self._read()
            self._replace(tuple(key for key in held if key.ring != ring or key.version >= version))

    def _read(self) -> tuple[EncryptedKey, ...]:
        with _translated(self._path):
            try:
                with open_regular(self._path) as file:
                    _require_ours(self._path, os.fstat(file.fileno()))
                    data = file.read()
            except FileNotFoundError:
                return ()
        return _parse(self._path, data)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A separate lock file, because the key file is replaced. Opened each time, so that threads
        # of one process exclude each other, too.
        with _translated(self._path):
            lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, OWNER_ONLY)
        try:
            with _translated(self._path):
                _set_owner(lock, self._owner())
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _replace(self, keys: tuple[EncryptedKey, ...]) -> None:
        document = {"format": FORMAT, "keys": [_row(key) for key in keys]}
        draft = self._path.with_name(f".{self._path.name}.new")
        with _translated(self._path):
            # Under the lock, only a killed process can have left a draft.
            draft.unlink(missing_ok=True)
            try:
                _write_durably(draft, json.dumps(document, indent=1).encode(), self._owner())
                draft.replace(self._path)
            finally:
                draft.unlink(missing_ok=True)
            _sync_folder(self._path.parent)

    def _owner(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_uid, status.st_gid


def _write_durably(path: Path, data: bytes, owner: tuple[int, int] | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, OWNER_ONLY)
    with os.fdopen(descriptor, "wb") as file:
        _set_owner(file.fileno(), owner)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _set_owner(descriptor: int, owner: tuple[int, int] | None) -> None:
    # A command run as root must not change the file's owner.
    if owner is not None and os.geteuid() == 0:
        os.fchown(descriptor, *owner)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_ours(path: Path, status: os.stat_result) -> None:
    exposure = find_exposure(status)
    if exposure is not None:
        raise BackendDenied(f"the key file {path} {exposure.problem}: {exposure.command} {path}")


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (PermissionError, NotRegularError) as error:
        raise BackendDenied(f"{error.filename or path}: {error.strerror}") from error
    except OSError as error:
        raise BackendUnavailable(
            f"the key file {path}: {error.strerror}", RETRY_AFTER_SECONDS
        ) from error


def _parse(path: Path, data: bytes) -> tuple[EncryptedKey, ...]:
    try:
        document = parse_json_object(data)
        if document["format"] != FORMAT:
            raise BackendBroken(f"the key file {path} has the unknown format {document['format']}")
        return tuple(_key(row) for row in document["keys"])
    except (TokenRefusedError, ValueError, KeyError, TypeError, AttributeError) as error:
        # Without the error's text, which could reveal a part of the file.
        raise BackendBroken(f"the key file {path} is damaged ({type(error).__name__})") from None


def _row(key: EncryptedKey) -> dict[str, Any]:
    return {
        "ring": key.ring,
        "version": key.version,
        "kid": key.kid,
        "alg": key.alg,
        "public_jwk": dict(key.public_jwk),
        "created_at": key.created_at.isoformat(),
        "envelope": b64encode(key.envelope).decode(),
    }


_TYPES: tuple[tuple[str, type], ...] = (
    ("ring", str),
    ("version", int),
    ("kid", str),
    ("alg", str),
    ("public_jwk", dict),
)


def _key(row: dict[str, Any]) -> EncryptedKey:
    members = {name: _typed(row[name], kind) for name, kind in _TYPES}
    return EncryptedKey(
        **members,
        created_at=_moment(row["created_at"]),
        envelope=b64decode(row["envelope"], validate=True),
    )


def _typed(value: object, kind: type) -> Any:  # noqa: ANN401 - one of the types of a row
    if type(value) is not kind:
        raise TypeError
    return value


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError
    return moment
