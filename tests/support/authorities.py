"""The machine's certificate authorities, read once: each client of httpx reads them for 20 ms."""

import os
import ssl
from functools import cache
from typing import Any

import httpx
from httpx._transports import default

_make = httpx.create_ssl_context


@cache
def _read_once(*named: str | None) -> ssl.SSLContext:
    """Read the authorities that the environment names; other names are read by themselves."""
    del named
    return _make()


def _create(
    verify: Any = True,  # noqa: FBT002 - as httpx has it
    cert: Any = None,
    trust_env: bool = True,  # noqa: FBT001, FBT002 - likewise
) -> ssl.SSLContext:
    if verify is True and cert is None and trust_env:
        return _read_once(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    return _make(verify=verify, cert=cert, trust_env=trust_env)


httpx.create_ssl_context = default.create_ssl_context = _create
