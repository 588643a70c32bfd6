"""Serves an application under the WSGI server that ours runs on, with the same settings.

Usage: python -m bench.host MODULE:ATTRIBUTE PORT HEALTH_PORT
"""

import multiprocessing
import sys
from functools import partial

from authz_server.cli.serve import build_server
from authz_server.cli.worker import load_application
from authz_server.settings import ServerSettings


def main(target: str, port: int, health_port: int) -> None:
    """Serve until told to stop."""
    settings = ServerSettings(port=port, health_port=health_port)
    multiprocessing.set_start_method("spawn", force=True)
    loader = partial(load_application, port=port, silence_seconds=settings.header_timeout_seconds)
    build_server(settings, target).serve(target_loader=loader)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
