"""WSGI application for other servers than ``serve``: ``authz_server.wsgi:application``.

The environment variable ``AUTHZ_SERVER_CONFIG`` names the settings file. The default is
``authz-server.toml`` in the working directory.
"""

import os
from functools import partial
from pathlib import Path

from authz_server.app import create_app, hold_background_work, record_start
from authz_server.logs import configure_logging
from authz_server.serving.prefork import PreforkApplication
from authz_server.settings import load_settings

_path = Path(os.environ.get("AUTHZ_SERVER_CONFIG", "authz-server.toml"))
_settings = load_settings(_path)
configure_logging(_settings.logging)

#: The public application.
application = PreforkApplication(
    partial(create_app, _settings),
    begin=lambda app: record_start(app, str(_path)),
    hold=hold_background_work,
)
