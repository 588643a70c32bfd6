"""The command line, with one module for each noun."""

import sys

from authz_server.serving.early_reload import early_reload, is_serve

# Here, because the libraries of the command line take long to import.
if is_serve(sys.argv[1:]):
    early_reload.watch()

from authz_server.cli.root import main

__all__ = ["main"]
