"""The command line, with one module for each noun."""

from authz_server.cli.root import main

__all__ = ["main"]
