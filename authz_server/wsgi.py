"""WSGI application for other servers than ``serve``: ``authz_server.wsgi:application``.

The environment variable ``AUTHZ_SERVER_CONFIG`` names the settings file. The default is
``authz-server.toml`` in the working directory.
"""

import os
from functools import partial
from pathlib import Path

from authz_server.app import Application, create_app, hold_background_work, record_start
from authz_server.database.tables import require_whole_schema
from authz_server.logs import configure_logging
from authz_server.serving.prefork import (
    PreforkApplication,
    find_uwsgi,
    require_dropped_names,
)
from authz_server.serving.schema_gate import SchemaGate
from authz_server.settings import load_settings

_path = Path(os.environ.get("AUTHZ_SERVER_CONFIG", "authz-server.toml"))
_settings = load_settings(_path)
configure_logging(_settings.logging)
_uwsgi = find_uwsgi()
if _uwsgi is not None:
    require_dropped_names(_uwsgi.opt, _settings)


def _begin(app: Application) -> None:
    record_start(app, str(_path))


#: The public application.
application = PreforkApplication(
    partial(create_app, _settings),
    begin=_begin,
    hold=hold_background_work,
    may_serve=SchemaGate(
        partial(require_whole_schema, _settings.database, is_patient=False)
    ).may_serve,
)
