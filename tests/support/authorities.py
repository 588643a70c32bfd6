"""The machine's certificate authorities, read once: each client of httpx reads them for 20 ms."""

import os
import ssl
from functools import cache
from typing import Any

import httpx
from httpx._transports import default


@cache
def _read_once(*named: str | None) -> ssl.SSLContext:
    """Read the authorities that the environment names; other names are read by themselves."""
    del named
    return httpx.create_ssl_context()


def _create(verify: Any, cert: Any = None, *, trust_env: bool = True) -> ssl.SSLContext:
    if verify is True and cert is None and trust_env:
        return _read_once(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    return httpx.create_ssl_context(verify=verify, cert=cert, trust_env=trust_env)


default.create_ssl_context = _create
