"""Find the documents that come with the server: in a checkout, or where the wheel puts them."""

import sys
from pathlib import Path

from authz_server.errors import NotFoundError

_INSTALLED = "share/doc/authz-server"


def find_documents() -> Path:
    """Return the folder with README.md, config.example.toml, docs/ and deploy/.

    Raises:
        NotFoundError: they are not installed.
    """
    for folder in (Path(__file__).parents[2], Path(sys.prefix, _INSTALLED)):
        if (folder / "config.example.toml").is_file():
            return folder
    raise NotFoundError(
        f"there are no documents in {Path(sys.prefix, _INSTALLED)}: install the wheel again"
    )
