"""node-oidc-provider in a process of its own, as the identity provider of the console."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import httpx

from support.ports import release_port, reserve_port

CLIENT_ID = "console"
CLIENT_SECRET = "a secret of the console at its provider"
_SECONDS = 20.0


class IdentityProvider:
    """A context manager. `callback` is where it sends browsers back; `accounts` are its people.

    `metadata` is further metadata of the client, instead of a secret.
    """

    def __init__(
        self,
        folder: Path,
        callback: str,
        accounts: dict[str, dict[str, Any]],
        **metadata: Any,
    ) -> None:
        self._folder = folder
        self._port = reserve_port()
        self.issuer = f"http://localhost:{self._port}"
        self._options = {
            "port": self._port,
            "accounts": accounts,
            "clients": [
                {
                    "client_id": CLIENT_ID,
                    "redirect_uris": [callback],
                    **(metadata or {"client_secret": CLIENT_SECRET}),
                }
            ],
        }

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            ["node", "provider.mjs"],
            cwd=self._folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._options).encode())
        self._process.stdin.close()
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                httpx.get(f"{self._url}/.well-known/openid-configuration").raise_for_status()
            except httpx.TransportError:
                assert self._process.poll() is None, "node-oidc-provider does not start"
                assert time.monotonic() < deadline
                time.sleep(0.1)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        release_port(self._port)

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def next_log_in(self, **log_in: Any) -> None:
        """Say who logs in next, and how: `account`, `acr`, `amr`; or the `error` instead."""
        httpx.put(f"{self._url}/next-log-in", json=log_in).raise_for_status()
