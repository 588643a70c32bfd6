"""Counting, in each process that serves, for the page of metrics that the main process shows.

Every process writes into files of its own in one folder, which the page adds up: that is the
multiprocess mode of ``prometheus_client``. The library chooses it when it is imported, by the
environment variable ``PROMETHEUS_MULTIPROC_DIR``; without it, nobody counts.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from authz_server.metrics.observer import (
    METRICS_FOLDER_VARIABLE,
    ServerObserver,
    SilentServerObserver,
)

logger = logging.getLogger(__name__)

# What each kind of file may take. The library would map files with holes: on a full disk, writing
# into a hole kills the process.
_FILE_BYTES: Mapping[str, int] = {
    "counter": 32_768,
    "histogram": 131_072,
    "gauge_livemax": 16_384,
    "gauge_livemin": 16_384,
    "gauge_livemostrecent": 16_384,
    "gauge_max": 16_384,
}


def open_observer(environ: Mapping[str, str] = os.environ) -> ServerObserver:
    """Return what counts in this process; where nobody would read it, it counts nothing."""
    folder = environ.get(METRICS_FOLDER_VARIABLE)
    if not folder:
        return SilentServerObserver()
    try:
        reserve_files(Path(folder), os.getpid())
    except OSError as error:
        logger.warning("this process counts nothing for the metrics: %s", error.strerror)
        return SilentServerObserver()
    # The library takes a while to load: whoever does not count is not to wait for it.
    from authz_server.metrics.recorder import MetricsObserver  # noqa: PLC0415

    return MetricsObserver()


def reserve_files(folder: Path, process_id: int) -> None:
    """Make the files that a process counts in, with all the space that they will take.

    Raises:
        OSError: there is no such folder, or no such space in it.
    """
    for kind, size in _FILE_BYTES.items():
        descriptor = os.open(folder / f"{kind}_{process_id}.db", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)
