"""A database of ours with what a benchmark needs: keys, a resource server and a client."""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from authz_server.assembly import Services
from authz_server.assembly.operator import operator_services
from authz_server.database.schema import upgrade_database
from authz_server.operations.keys.first_keys import create_missing_keys
from authz_server.scopes.g2p_connect import CATALOGUE
from authz_server.settings import load_settings

ACTOR = "operator:bench"
ISSUER = "https://authz.example"
SCOPE = "mapper/link"


@dataclass(frozen=True)
class Registered:
    """Who sends requests: a client by the form, and resource servers by Basic."""

    client_id: str
    client_secret: str
    resource_server_id: str
    resource_server_secret: str


def write_settings(  # noqa: PLR0913 - the settings that differ
    directory: Path,
    database_url: str,
    port: int,
    health_port: int,
    *,
    workers: int,
    is_behind_proxy: bool = False,
) -> Path:
    """Write a settings file for production with the defaults for all else; return its path.

    Args:
        directory: for the file and its secrets.
        database_url: the database.
        port: of loopback.
        health_port: likewise.
        workers: the number of worker processes.
        is_behind_proxy: whether client certificates come from nginx on loopback.
    """
    for name in ("pepper", "key-encryption-key"):
        path = directory / name
        path.touch(0o600)
        path.write_text(secrets.token_hex(32), encoding="ascii")
    path = directory / "authz-server.toml"
    path.touch(0o600)  # the URL of a database holds its password
    proxies, source = (["127.0.0.1"], "nginx") if is_behind_proxy else ([], "off")
    audit = json.dumps(str(directory / "audit.jsonl"))
    path.write_text(
        f"""issuer = "{ISSUER}"
[server]
port = {port}
health_port = {health_port}
workers = {workers}
trusted_proxies = {json.dumps(proxies)}
[client_certificates]
source = "{source}"
[database]
url = {json.dumps(database_url)}
[clients]
secret_pepper = {{ file = "pepper" }}
[keys]
key_encryption_key = {{ file = "key-encryption-key" }}
[audit]
destination = {audit}
""",
        encoding="utf-8",
    )
    return path


def prepare(
    settings_path: Path,
    *,
    make_keys: bool = True,
    register: Callable[[Services], object] | None = None,
) -> Registered:
    """Create the schema, the first keys if wanted, a client and a resource server.

    Args:
        settings_path: the settings file.
        make_keys: whether to create the first keys.
        register: registers further clients.
    """
    settings = load_settings(settings_path, {})
    upgrade_database(settings.database)
    with operator_services(settings) as services:
        if make_keys:
            create_missing_keys(services, actor=ACTOR)
        registered = Registered(
            "ministry", _add_client(services), "mapper", _add_resource_server(services)
        )
        if register is not None:
            register(services)
        return registered


def _add_resource_server(services: Services) -> str:
    with services.transaction() as session:
        services.clients.create_resource_server(
            session, actor=ACTOR, id="mapper", name="Mapper", identifier="https://mapper.example"
        )
        owned = [each.name for each in CATALOGUE if each.name.startswith("mapper/")]
        services.scopes.assign(session, owned, "mapper", actor=ACTOR)
        return services.clients.add_secret(session, "mapper", actor=ACTOR)[1]


def _add_client(services: Services) -> str:
    with services.transaction() as session:
        services.scopes.import_catalogue(session, CATALOGUE, actor=ACTOR)
        services.clients.create_client(
            session, actor=ACTOR, id="ministry", name="Ministry", allowed_scopes=[SCOPE]
        )
        return services.clients.add_secret(session, "ministry", actor=ACTOR)[1]
