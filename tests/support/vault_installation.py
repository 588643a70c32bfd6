"""An installation whose ring is in a real OpenBao: settings, policies as printed, two AppRoles."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keys.backends.vault.policy import VaultPlace, VaultRole, grants_for, render_policy
from support.openbao import OpenBaoAdmin
from support.settings_file import write_secret, write_settings


@dataclass
class VaultInstallation:
    """One transit key (or KV folder) with the identities of server and rotator.

    Attributes:
        address: Of the OpenBao server.
        admin: Root there.
        mount: Of the engine.
        directory: Where the secret ids and the settings file are.
        scheme: `transit` or `kv`.
        drive: Of the ring.
    """

    address: str
    admin: OpenBaoAdmin
    mount: str
    directory: Path
    scheme: str = "transit"
    drive: str = "rotator"

    @property
    def place(self) -> VaultPlace:
        """The ring's key."""
        return VaultPlace(self.scheme, "main", self.mount, "oidc-es256")

    def write_policy(self, role: VaultRole) -> str:
        """Write the printed policy of a role; return its name."""
        name = f"{self.mount}-{role}"
        places = {self.place: self.drive == "self"}
        self.admin.write_policy(name, render_policy("of a test", grants_for(role, places)))
        return name

    def login(self, role: VaultRole, *policies: str) -> dict[str, Any]:
        """Return the login table of an AppRole with these policies, else with its own."""
        name = f"{role}-{secrets.token_hex(4)}"
        held = policies or (self.write_policy(role),)
        made = self.admin.create_approle(name, held, token_period="20m")
        file = self.directory / f"{name}-secret-id"
        write_secret(file, made.secret_id)
        return {"method": "approle", "role_id": made.role_id, "secret_id_file": str(file)}

    def settings(self, database_url: str, overrides: Mapping[str, Any] | None = None) -> Path:
        """Write the settings file; return its path."""
        vault = {
            "addresses": [self.address],
            "login": self.login(VaultRole.SERVER),
            "rotator_login": self.login(VaultRole.ROTATOR),
        }
        ring = {
            "algorithm": "ES256",
            "backend": f"{self.scheme}://{self.mount}/oidc-es256",
            "drive": self.drive,
        }
        tree = {"keys": {"rings": {"es256": ring}, "vaults": {"main": vault}}}
        return write_settings(self.directory, database_url, _laid_over(tree, overrides or {}))


def _laid_over(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        held = base.get(key)
        both = isinstance(value, Mapping) and isinstance(held, Mapping)
        merged[key] = _laid_over(held, value) if both else value
    return {key: value for key, value in merged.items() if value is not None}
