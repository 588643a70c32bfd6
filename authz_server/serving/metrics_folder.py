"""The folder of the metrics files while a server runs."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from authz_server.metrics.files import METRICS_FOLDER_VARIABLE


@contextmanager
def metrics_folder() -> Iterator[Path]:
    """Yield a new folder for the metrics files of child processes; delete it at the end.

    Raises:
        click.ClickException: the folder cannot be made.
    """
    try:
        # A TemporaryDirectory would also be deleted when a forked worker exits.
        name = tempfile.mkdtemp(prefix="authz-server-metrics-")
    except OSError as error:
        raise click.ClickException(
            f"The folder for metrics cannot be made ({error.strerror}): "
            "set the environment variable TMPDIR to a folder that can be written."
        ) from error
    # systemd-tmpfiles does not clean a locked folder.
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
        # It may be gone already.
        shutil.rmtree(name, ignore_errors=True)
