"""Starts what signs with a Vault: OpenBao on raft storage, and our server with its keys in it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from authz_server.database.schema import upgrade_database
from authz_server.settings import load_settings
from bench.registered import Registered, prepare
from bench.servers import ROOT, Server, reserved_ports, running_server
from support.openbao import OpenBaoAdmin, RaftServer
from support.vault_installation import VaultInstallation

#: The folder of a module that every interpreter of a server without batching loads first.
UNBATCHED = ROOT / "bench" / "without_batching"
_MOUNT = "transit"
_KEY = "measured-alone"
#: A busy machine is to make an answer late, not wrong.
_LONGEST_CALL_MILLISECONDS = 5_000


@dataclass(frozen=True)
class Vault:
    """An OpenBao that runs, with a key of its own and a token that may only sign.

    Attributes:
        server: the process.
        admin: root there.
        token: the one that signs.
    """

    server: RaftServer
    admin: OpenBaoAdmin
    token: str

    @property
    def port(self) -> int:
        """Where it answers."""
        return self.server.port

    @property
    def process_id(self) -> int:
        """Its process."""
        return self.server.process_id

    @property
    def signing_path(self) -> str:
        """Where it signs with its own key."""
        return f"{_MOUNT}/sign/{_KEY}"


@contextmanager
def running_vault(directory: Path) -> Iterator[Vault]:
    """Start OpenBao, with an audit file, and give it the key that is signed with directly."""
    directory.mkdir()
    with RaftServer(audit=True) as server:
        admin = server.admin()
        admin.enable_transit(_MOUNT)
        admin.create_key(_KEY, mount=_MOUNT)
        policy = (
            f'path "{_MOUNT}/sign/{_KEY}" {{ capabilities = ["update"] '
            'required_parameters = ["key_version"] }'
        )
        admin.write_policy(_KEY, policy)
        yield Vault(server, admin, admin.create_token([_KEY], ttl="1h"))


@contextmanager
def ours_in_vault(
    vault: Vault, scheme: str, directory: Path, *first_on_path: Path
) -> Iterator[tuple[Server, Registered]]:
    """Serve authz-server with its ring in ``scheme`` of that OpenBao, with least privilege.

    Args:
        vault: where the keys are.
        scheme: ``transit`` or ``kv``.
        directory: for settings, database and logs.
        first_on_path: folders in which the server looks for modules first.
    """
    mount = f"{scheme}-{directory.name}"
    (vault.admin.enable_transit if scheme == "transit" else vault.admin.enable_kv)(mount)
    if scheme == "transit":
        vault.admin.create_key("oidc-es256", mount=mount)
    with reserved_ports(2) as [port, health_port]:
        path = _settings(vault, scheme, mount, directory, (port, health_port))
        upgrade_database(load_settings(path, {}).database)
        command = [sys.executable, "-m", "authz_server"]
        subprocess.run([*command, "keys", "init", "--config", str(path)], cwd=ROOT, check=True)
        registered = prepare(path, make_keys=False)
        serving = [*command, "serve", "--config", str(path)]
        folders = [*map(str, first_on_path), os.environ.get("PYTHONPATH", "")]
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, folders))}
        with running_server(serving, port, directory, environment) as server:
            yield server, registered


def _settings(
    vault: Vault, scheme: str, mount: str, directory: Path, ports: tuple[int, int]
) -> Path:
    port, health_port = ports
    installation = VaultInstallation(vault.server.address, vault.admin, mount, directory, scheme)
    url = f"sqlite:///{directory / 'database.sqlite'}"
    patience = {
        f"{name}_timeout_milliseconds": _LONGEST_CALL_MILLISECONDS for name in ("read", "total")
    }
    return installation.settings(
        url,
        {
            "environment": "production",
            "logging": {"level": "info"},
            "server": {"port": port, "health_port": health_port},
            "keys": {"vaults": {"main": patience}},
        },
    )
