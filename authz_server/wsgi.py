"""What a WSGI server loads: ``authz_server.wsgi:application``.

The settings file is named by the environment variable ``AUTHZ_SERVER_CONFIG``; without it, it is
``authz-server.toml`` in the working directory.
"""

import os
from pathlib import Path

from authz_server.app import create_app, tell_of_start
from authz_server.logs import configure_logging
from authz_server.settings import load_settings

_path = Path(os.environ.get("AUTHZ_SERVER_CONFIG", "authz-server.toml"))
_settings = load_settings(_path)
configure_logging(_settings.logging)

#: The public application.
application = create_app(_settings)
tell_of_start(application, str(_path))
