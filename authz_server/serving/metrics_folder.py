"""The folder in which a server's processes count, for as long as it runs."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from authz_server.metrics.observer import METRICS_FOLDER_VARIABLE


@contextmanager
def metrics_folder() -> Iterator[Path]:
    """Yield a new folder that processes started meanwhile count in; take it away at the end.

    Raises:
        click.ClickException: there is no place for it.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="authz-server-metrics-")
    except OSError as error:
        raise click.ClickException(
            f"no folder can be made for the metrics ({error.strerror}): "
            "name a place that can be written in the environment variable TMPDIR."
        ) from error
    with folder as name:
        # systemd-tmpfiles leaves alone what is locked, however old the files in it are.
        lock = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        before = os.environ.get(METRICS_FOLDER_VARIABLE)
        os.environ[METRICS_FOLDER_VARIABLE] = name
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield Path(name)
        finally:
            os.close(lock)
            if before is None:
                del os.environ[METRICS_FOLDER_VARIABLE]
            else:
                os.environ[METRICS_FOLDER_VARIABLE] = before
