"""The file with the latest stored change, outside of the database.

A restored older copy of the database lacks this change: the file shows that also after a restart,
and where audit records go to a stream. All processes of a machine write the same file.
"""

import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import msgspec
from sqlalchemy import bindparam, column, select, table
from sqlalchemy.orm import Session

from authz_server.audit.destination import sync_folder
from authz_server.audit.models import AuditRecord
from authz_server.audit.seen_changes import SeenChange, is_lost, read_latest
from authz_server.audit.stored_rows import load
from authz_server.settings import AuditSettings, SettingsError
from authz_server.settings.sources import describe_refusal

logger = logging.getLogger(__name__)

#: A line is padded to this length, so that it is written in place and with one block.
_BYTES = 4_096
_SUBJECT_CHARACTERS = 300
_BEGINNING = b'{"database":'
_LOCK_SECONDS = 1.0
_POLL_SECONDS = 0.002
#: Defined above this package, which knows the table by name alone.
_KEY_EVENT = table("key_event", column("id"), column("hash"))
# The hash of the first event of the keys, which is never deleted, is shared by copies alone.
_IDENTITY = select(_KEY_EVENT.c.hash).order_by(_KEY_EVENT.c.id).limit(1)
_RECORD = AuditRecord.__table__.c
_STORED = select(_IDENTITY.scalar_subquery(), _RECORD.at, _RECORD.action, _RECORD.subject).where(
    _RECORD.id == bindparam("id")
)


class _Kept(msgspec.Struct, frozen=True):
    """The content of the file: a change, and the identity of its database."""

    database: str
    id: int
    at: datetime
    action: str
    subject: str

    @property
    def change(self) -> SeenChange:
        return SeenChange(self.id, self.at, self.action, self.subject)


_decode = msgspec.json.Decoder(_Kept).decode


def read_identity(session: Session) -> str | None:
    """Return what a database shares with its copies alone; None: it has no keys yet."""
    found: str | None = session.scalar(_IDENTITY)
    return found


class LatestChangeFile:
    """The latest stored change of a database, in a file that its owner alone can read.

    The file is created when there is a change. One that cannot be used is logged once; nothing else
    depends on it. Threads and processes may share it.

    Args:
        path: the file; not a symbolic link.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._problem = ""
        # What was in the file last, for when it cannot be read.
        self._known: _Kept | None = None

    def find_lost(self, session: Session) -> SeenChange | None:
        """Return the change in the file if the database lacks it, else None.

        Of a file that cannot be read, the change that was last read from it counts.

        Args:
            session: for reading.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        try:
            kept = self._read()
        except OSError as error:
            self._report(error)
            kept = self._known
        if kept is None or kept.database != read_identity(session):
            return None
        return kept.change if is_lost(session, kept.change) else None

    def keep(self, session: Session, committed: Iterable[AuditRecord] = ()) -> SeenChange | None:
        """Write the latest stored change, which is on disk when this returns.

        Nothing is written while the database lacks the change in the file, nor where that cannot be
        read.

        Args:
            session: for reading, which finds all audit records.
            committed: the changes that were just committed, if any.

        Returns:
            The change that the database lacks, or None.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        latest = max(map(_change_of, committed), default=None)
        try:
            before = self._read()
        except OSError as error:
            self._report(error)
            return None
        kept, lost = _choose(session, before, latest)
        return self._write(session, kept, before, latest) if kept is not None else lost

    def _read(self) -> _Kept | None:
        """Return the content; None: there is none.

        Raises:
            OSError: it cannot be read.
        """
        try:
            with _opened(self._path, os.O_RDONLY, fcntl.LOCK_SH) as descriptor:
                kept = _read_from(descriptor)
        except FileNotFoundError:
            kept = None
        self._known = kept
        return kept

    def _write(
        self, session: Session, kept: _Kept, before: _Kept | None, latest: SeenChange | None
    ) -> SeenChange | None:
        """Write a change; choose again if another process has written since ``before``."""
        lost: SeenChange | None = None
        chosen: _Kept | None = kept
        try:
            with _opened(self._path, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX) as descriptor:
                present = _read_from(descriptor)
                if present != before:
                    chosen, lost = _choose(session, present, latest)
                if chosen is not None:
                    if present is not None and present.database != chosen.database:
                        logger.warning("%s is of another database: it is replaced", self._path)
                    _write_to(descriptor, chosen, self._path)
                self._known = chosen or present
            self._problem = ""
        except OSError as error:
            self._report(error)
        return lost

    def _report(self, error: OSError) -> None:
        problem = describe_refusal(Path(self._path), error)
        if problem != self._problem:
            logger.warning(
                "%s cannot be used (%s): an older copy of the database that is restored while no "
                "server runs may not be detected",
                self._path,
                problem,
            )
        self._problem = problem


def _change_of(record: AuditRecord) -> SeenChange:
    return SeenChange(record.id, record.at, record.action, record.subject)


def _choose(
    session: Session, before: _Kept | None, latest: SeenChange | None
) -> tuple[_Kept | None, SeenChange | None]:
    """Return what to write in the place of ``before``, and the change that the database lacks.

    Args:
        session: for reading.
        before: the content of the file.
        latest: the latest of the changes that were just committed; None: there are none.
    """
    # Most often so: one query then is enough.
    is_stored = before is not None and _is_stored(session, before)
    identity = before.database if before is not None and is_stored else read_identity(session)
    if identity is None:
        return None, None
    is_absent = True
    if before is not None and before.database == identity:
        if not is_stored and is_lost(session, before.change):
            return None, before.change
        if latest is not None and latest.id <= before.id:
            if is_stored:
                return None, None  # another process kept a later change
            latest = None
        is_absent = not is_stored and not _has_row(session, before.id)
    latest = latest or read_latest(session)
    # All tokens were revoked since the change was lost, or it was purged: the number may go back.
    if latest is None or (before is not None and not is_absent and latest.id < before.id):
        return None, None
    subject = latest.subject[:_SUBJECT_CHARACTERS]
    kept = _Kept(identity, latest.id, latest.at, latest.action, subject)
    return (None if kept == before else kept), None


def _has_row(session: Session, number: int) -> bool:
    return session.scalar(select(_RECORD.id).where(_RECORD.id == number)) is not None


def _is_stored(session: Session, kept: _Kept) -> bool:
    """Return whether a database of the same identity has this change."""
    row = load(lambda: session.connection().execute(_STORED, {"id": kept.id}).first())
    if row is None:
        return False
    identity, at, action, subject = row
    stored = (identity, at, action, subject[:_SUBJECT_CHARACTERS])
    return stored == (kept.database, kept.at, kept.action, kept.subject)


def open_latest_change(audit: AuditSettings) -> LatestChangeFile | None:
    """Return the file of the settings; None: there is none."""
    return LatestChangeFile(audit.latest_change_file) if audit.latest_change_file else None


def require_latest_change(audit: AuditSettings) -> None:
    """Require that the file of the settings can be written, without creating it.

    Raises:
        SettingsError: it cannot be opened, or holds something else; or its folder cannot hold it.
    """
    if not audit.latest_change_file:
        return
    path = Path(audit.latest_change_file)
    try:
        _require_usable(path)
    except OSError as error:
        problem = f"{path} cannot be written ({describe_refusal(path, error)})"
        raise SettingsError(
            problem,
            key="audit.latest_change_file",
            remedy="Name a file that the server can write, or leave it empty: an older copy of the "
            "database that is restored while no server runs may then not be detected.",
        ) from error


def _require_usable(path: Path) -> None:
    try:
        with _opened(str(path), os.O_RDWR, fcntl.LOCK_SH) as descriptor:
            _read_from(descriptor)
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


def _open(path: str, flags: int) -> int:
    """Open a file, which is created with ``O_CREAT``; a symbolic link is not followed."""
    # Non-blocking: the name may be that of a pipe.
    usual = os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags & ~os.O_CREAT | usual)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link") from None
        raise
    try:
        descriptor = os.open(path, flags | os.O_EXCL | usual, 0o600)
    except FileExistsError:
        # Another process has created it meanwhile.
        return os.open(path, flags & ~os.O_CREAT | usual)
    if not os.geteuid():
        # A command of root must not lock the server out of the file, which it has just created.
        try:
            folder = Path(path).parent.stat()
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
        except OSError:
            os.close(descriptor)
            raise
    return descriptor


@contextmanager
def _opened(path: str, flags: int, lock: int) -> Iterator[int]:
    descriptor = _open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file")
        _lock(descriptor, lock)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, lock: int) -> None:
    """Lock the file until it is closed; a process that is stopped holds up no revocation."""
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, lock | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise TimeoutError(errno.ETIMEDOUT, "another process locks it") from None
            time.sleep(_POLL_SECONDS)
        else:
            return


def _read_from(descriptor: int) -> _Kept | None:
    """Return the content; None: there is none, or a crash has cut it off.

    Raises:
        OSError: the file holds something else.
    """
    content = os.pread(descriptor, _BYTES, 0).strip(b"\0 \n")
    try:
        return _decode(content) if content else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        if content.startswith(_BEGINNING):
            return None
        raise FileExistsError(errno.EEXIST, "it holds something else") from None


def _write_to(descriptor: int, kept: _Kept, path: str) -> None:
    is_new = not os.fstat(descriptor).st_size
    content = msgspec.json.encode(kept).ljust(_BYTES - 1) + b"\n"
    if os.pwrite(descriptor, content, 0) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fdatasync(descriptor)
    if is_new:
        sync_folder(path)
