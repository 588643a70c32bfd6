"""Ory Hydra, built from its Go module, everything in memory."""

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.registered import SCOPE
from bench.servers import (
    CACHE,
    Server,
    require_programs,
    reserved_ports,
    run_installer,
    running_server,
)

VERSION = "2.3.0"
AUDIENCE = "https://mapper.example"
_FOLDER = CACHE / f"hydra-{VERSION}"
_PROGRAM = _FOLDER / "hydra"
# The replacement is that of Hydra's own go.mod, which counts in the main module only. All other
# versions follow from the one of Hydra; Go checks every module against its checksum database.
_MODULE = f"""module bench/hydra

go 1.22

require github.com/ory/hydra/v2 v{VERSION}

replace github.com/gobuffalo/pop/v6 => github.com/ory/pop/v6 v6.2.1-0.20241121111754-e5dfc0f3344b
"""
_MAIN = """package main

import "github.com/ory/hydra/v2/cmd"

func main() { cmd.Execute() }
"""


@dataclass(frozen=True)
class Hydra:
    """A Hydra that answers, with one client.

    Attributes:
        public: its public listener.
        admin: its administrative listener, which introspects and authenticates no caller.
        secret: the client's.
    """

    public: Server
    admin: Server
    secret: str


@contextmanager
def hydra(directory: Path) -> Iterator[Hydra]:
    """Serve Hydra with JWT access tokens in ES256.

    Raises:
        NotAtHandError: there is no Go or C compiler, or its modules cannot be had.
    """
    _install()
    with reserved_ports(2) as [port, admin_port]:
        settings_path = directory / "hydra.json"
        settings_path.write_text(json.dumps(_settings(port, admin_port)), encoding="utf-8")
        command = [str(_PROGRAM), "serve", "all", "--dev", "--config", str(settings_path)]
        with running_server(command, port, directory) as server:
            admin = Server(admin_port, server.process_id, start_seconds=server.start_seconds)
            yield Hydra(server, admin, _prepare(admin_port))


def _install() -> None:
    require_programs("go", "gcc")
    if _PROGRAM.is_file():
        return
    _FOLDER.mkdir(parents=True, exist_ok=True)
    (_FOLDER / "go.mod").write_text(_MODULE, encoding="utf-8")
    (_FOLDER / "main.go").write_text(_MAIN, encoding="utf-8")
    build = ["go", "build", "-mod=mod", "-buildvcs=false", "-trimpath"]
    tags = ["-tags", "sqlite,sqlite_omit_load_extension", "-o", _PROGRAM.name, "."]
    run_installer([*build, *tags], _FOLDER, "Go could not build it", {"CGO_ENABLED": "1"})


def _settings(port: int, admin_port: int) -> Mapping[str, object]:
    return {
        "dsn": "memory",
        "serve": {
            "public": {"host": "127.0.0.1", "port": port},
            "admin": {"host": "127.0.0.1", "port": admin_port},
        },
        "urls": {"self": {"issuer": "https://authz.example"}},
        "secrets": {"system": [secrets.token_hex(16)]},
        "strategies": {"access_token": "jwt"},
        "ttl": {"access_token": "15m"},
        "log": {"level": "warn"},
        "sqa": {"opt_out": True},
    }


def _prepare(admin_port: int) -> str:
    """Make the signing key and the client; return the client's secret."""
    secret = secrets.token_urlsafe(32)
    admin = f"http://127.0.0.1:{admin_port}/admin"
    key = {"alg": "ES256", "kid": "bench", "use": "sig"}
    client = {
        "client_id": "ministry",
        "client_secret": secret,
        "grant_types": ["client_credentials"],
        "token_endpoint_auth_method": "client_secret_post",
        "scope": SCOPE,
        "audience": [AUDIENCE],
    }
    # The administrative listener may come a moment after the public one.
    with httpx.Client(transport=httpx.HTTPTransport(retries=6), timeout=30) as session:
        for path, made in (("keys/hydra.jwt.access-token", key), ("clients", client)):
            session.post(f"{admin}/{path}", json=made).raise_for_status()
    return secret
