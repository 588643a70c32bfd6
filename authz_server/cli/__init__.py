"""The command line: one module for each noun, one sentence for each error."""

from authz_server.cli.root import main

__all__ = ["main"]
