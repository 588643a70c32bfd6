"""A folder with one file for the secret of each client: written by ``apply``, read for imports."""

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from authz_server.errors import InvalidChangeError
from authz_server.operations.private_files import (
    sync_files,
    without_line_break,
    write_private_file,
)

MAXIMUM_SECRET_BYTES = 8_192


def secret_path(directory: Path, client_id: str) -> Path:
    """Return the path of a client's secret; characters such as ``/`` are percent-encoded."""
    return directory / quote(client_id, safe="@")


class SecretDirectory:
    """Writes secrets to new files with the mode 0600.

    Args:
        directory: the folder; it is made with the mode 0700 if it does not exist.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written: list[Path] = []

    def rehearse(self, client_ids: Iterable[str]) -> None:
        """Require that secrets of these ids can be written, and leave no file of them.

        Raises:
            ConflictError: a file exists.
            OSError: one cannot be written.
        """
        try:
            for client_id in client_ids:
                self.write(client_id, "")
        finally:
            self.discard()

    def write(self, client_id: str, secret: str) -> Path:
        """Write a secret, followed by a line break; return the path.

        Raises:
            ConflictError: the file exists.
            OSError: it cannot be written.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = secret_path(self._directory, client_id)
        write_private_file(path, f"{secret}\n".encode(), durable=False)
        self._written.append(path)
        return path

    def sync(self) -> None:
        """Return when the files are on disk: the secrets cannot be read again."""
        sync_files(self._written)

    def discard(self) -> None:
        """Remove the files that were written, whose secrets were not stored."""
        for path in self._written:
            path.unlink(missing_ok=True)
        self._written.clear()


def read_imported(directory: Path | None, client_id: str) -> bytes | None:
    """Return the secret to import for a client; None if the folder has none.

    Raises:
        InvalidChangeError: the file is not a secret.
        OSError: it cannot be read.
    """
    if directory is None:
        return None
    path = secret_path(directory, client_id)
    if not path.exists():
        return None
    with path.open("rb") as file:
        content = file.read(MAXIMUM_SECRET_BYTES + 1)
    if len(content) > MAXIMUM_SECRET_BYTES:
        raise InvalidChangeError(f"{path}: it is too large for a secret")
    return without_line_break(content)
