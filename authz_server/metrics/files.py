"""Metrics files of each serving process.

Every process writes files of its own in one folder, and the exporter sums them up: this is the
multiprocess mode of ``prometheus_client``. The library selects it when it is imported, by the
environment variable ``PROMETHEUS_MULTIPROC_DIR``. Without the variable, no metrics are recorded.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from authz_server.metrics.recorder import MetricsRecorder

#: The environment variable with the folder of the metrics files.
METRICS_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

logger = logging.getLogger(__name__)

# The size of each kind of file. The library would map sparse files: on a full disk, writing into a
# hole kills the process.
_FILE_BYTES: Mapping[str, int] = {
    "counter": 32_768,
    "histogram": 131_072,
    "gauge_livemax": 16_384,
    "gauge_livemin": 16_384,
    "gauge_livemostrecent": 16_384,
    "gauge_max": 16_384,
}


def open_recorder(environ: Mapping[str, str] = os.environ) -> "MetricsRecorder | None":
    """Return the recorder of this process; None if there is no metrics folder or no space."""
    folder = environ.get(METRICS_FOLDER_VARIABLE)
    if not folder:
        return None
    try:
        reserve_files(Path(folder), os.getpid())
    except OSError as error:
        logger.warning("this process records no metrics: %s", error.strerror)
        return None
    # The library is slow to import; import it only to record metrics.
    from authz_server.metrics.recorder import MetricsRecorder  # noqa: PLC0415

    return MetricsRecorder()


def reserve_files(folder: Path, process_id: int) -> None:
    """Create the metrics files of a process with their full size.

    Raises:
        OSError: the folder does not exist or has no space.
    """
    for kind, size in _FILE_BYTES.items():
        final = folder / f"{kind}_{process_id}.db"
        # The exporter may read at any moment, and cannot read an empty file. An ended process with
        # the same id leaves its counts.
        path = final if final.exists() else final.with_suffix(".new")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)
        path.rename(final)
