"""KV engines of version 2 on an OpenBao server, ready to be used."""

import secrets
import time

import hvac.exceptions

from support.openbao_admin import OpenBaoAdmin

_READY_SECONDS = 20.0
_PAUSE_SECONDS = 0.01


def add_kv_engine(admin: OpenBaoAdmin, mount: str = "") -> str:
    """Mount an engine and return its mount once it answers: at first it only says to wait."""
    mount = mount or f"kv-{secrets.token_hex(4)}"
    admin.enable_kv(mount)
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            admin.call("GET", f"{mount}/config")
        except hvac.exceptions.InvalidRequest:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return mount
