"""Keycloak's Quarkus distribution from Maven, in production mode, everything in its own process."""

import hashlib
import json
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.registered import SCOPE
from bench.servers import (
    CACHE,
    NotAtHandError,
    Server,
    require_programs,
    reserved_ports,
    run_installer,
    running_server,
)

VERSION = "26.7.0"
REALM = "bench"
_SHA256 = "e63bd0167199c0092b8a4d22cc137e6b7a70e0089070f6f7799b1be504b69a8a"
_ARCHIVE = f"keycloak-quarkus-dist-{VERSION}.zip"
_HOME = CACHE / f"keycloak-{VERSION}"
_BUILD_OPTIONS = ("--db=dev-mem", "--health-enabled=false", "--metrics-enabled=false")
_LIFETIME_SECONDS = 900


@contextmanager
def keycloak(directory: Path) -> Iterator[tuple[Server, str]]:
    """Serve Keycloak with a realm of one client and one resource server; yield their secret.

    Raises:
        NotAtHandError: there is no Java or Maven, the distribution cannot be had, or does not run.
    """
    _install()
    secret = secrets.token_urlsafe(32)
    home = directory / "keycloak"
    # Realms are imported from a folder of the distribution, so each run has a copy of its own.
    shutil.copytree(_HOME, home, symlinks=True)
    imports = home / "data" / "import"
    imports.mkdir(parents=True, exist_ok=True)
    (imports / "realm.json").write_text(json.dumps(_realm(secret)), encoding="utf-8")
    with reserved_ports(1) as [port]:
        listener = ["--http-enabled=true", "--http-host=127.0.0.1", f"--http-port={port}"]
        public = ["--hostname=https://authz.example", "--proxy-headers=xforwarded", "--cache=local"]
        command = ["sh", str(home / "bin" / "kc.sh"), "start", "--optimized", "--import-realm"]
        with running_server([*command, *listener, *public], port, directory) as server:
            yield server, secret


def _install() -> None:
    require_programs("mvn", "java")
    if _HOME.is_dir():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    artifact = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
    copy = ["mvn", "--batch-mode", "--quiet", "dependency:copy", f"-Dartifact={artifact}"]
    run_installer(
        [*copy, f"-DoutputDirectory={CACHE}"], CACHE, "Maven could not download its distribution"
    )
    archive = CACHE / _ARCHIVE
    if hashlib.sha256(archive.read_bytes()).hexdigest() != _SHA256:
        raise NotAtHandError(f"{_ARCHIVE} is not the file that was pinned")
    unpacked = CACHE / "unpacked"
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(unpacked)
    home = unpacked / f"keycloak-{VERSION}"
    build = ["sh", str(home / "bin" / "kc.sh"), "build", *_BUILD_OPTIONS]
    run_installer(build, home, "its build step failed")
    home.rename(_HOME)
    archive.unlink()


def _realm(secret: str) -> dict[str, object]:
    keys = {
        "name": "ecdsa",
        "providerId": "ecdsa-generated",
        "config": {"priority": ["100"], "ecdsaEllipticCurveKey": ["P-256"]},
    }
    return {
        "realm": REALM,
        "enabled": True,
        "defaultSignatureAlgorithm": "ES256",
        "accessTokenLifespan": _LIFETIME_SECONDS,
        "components": {"org.keycloak.keys.KeyProvider": [keys]},
        "clientScopes": [_scope()],
        "clients": [
            _client("ministry", secret, issuing=True, optionalClientScopes=[SCOPE]),
            _client("mapper", secret, issuing=False),
        ],
    }


def _scope() -> dict[str, object]:
    config = {
        "included.client.audience": "mapper",
        "access.token.claim": "true",
        "introspection.token.claim": "true",
    }
    mapper = {
        "name": "audience",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-audience-mapper",
        "config": config,
    }
    return {
        "name": SCOPE,
        "protocol": "openid-connect",
        "attributes": {"include.in.token.scope": "true"},
        "protocolMappers": [mapper],
    }


def _client(client_id: str, secret: str, *, issuing: bool, **more: object) -> dict[str, object]:
    return {
        "clientId": client_id,
        "secret": secret,
        "publicClient": False,
        "serviceAccountsEnabled": issuing,
        "standardFlowEnabled": False,
        "directAccessGrantsEnabled": False,
        "fullScopeAllowed": False,
        "defaultClientScopes": [],
        **more,
    }
