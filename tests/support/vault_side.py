"""The Vault of a `VaultFixture`: engines, policies, roles, and what can go wrong with them."""

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from hvac.exceptions import VaultError

from support.openbao import OpenBaoAdmin, OpenBaoServer
from support.secrets_watch import SecretsWatch

SERVER_POLICY = """
path "{mount}/sign/{key}" {{
  capabilities        = ["update"]
  required_parameters = ["key_version"]
}}
path "{mount}/keys/{key}" {{ capabilities = ["read"] }}
path "{mount}-kv/data/{key}" {{ capabilities = ["read"] }}
path "{mount}-kv/metadata/{key}" {{ capabilities = ["list"] }}
"""
ROTATOR_POLICY = """
path "{mount}/keys/{key}" {{ capabilities = ["read", "create", "update"] }}
path "{mount}/keys/{key}/rotate" {{ capabilities = ["update"] }}
path "{mount}/keys/{key}/config" {{
  capabilities       = ["update"]
  allowed_parameters = {{ "min_encryption_version" = [] }}
}}
path "{mount}-kv/data/{key}" {{ capabilities = ["read", "create"] }}
path "{mount}-kv/metadata/{key}" {{ capabilities = ["list"] }}
"""
OWN_TOKEN_POLICY = """
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
"""
_PAUSE_SECONDS = 0.05


class VaultEngines:
    """Engines and roles of one site in an OpenBao; every name is the site's own.

    Args:
        vault: running and unsealed.
        directory: where the secret ids go.
        watch: is told of them.
        drives_itself: whether the server has the rotator's rights too.
    """

    def __init__(
        self, vault: OpenBaoServer, directory: Path, watch: SecretsWatch, *, drives_itself: bool
    ) -> None:
        self.vault, self.directory, self.watch = vault, directory, watch
        self.mount = f"transit-{secrets.token_hex(4)}"
        self._drives_itself = drives_itself

    @property
    def admin(self) -> OpenBaoAdmin:
        """Root at the Vault."""
        return self.vault.admin()

    def prepare(self) -> None:
        """Mount the engine; write policies and roles for the server and the rotator."""
        self.admin.enable_transit(self.mount)
        self.admin.enable_kv(f"{self.mount}-kv")
        self.write_policies()
        for role in ("server", "rotator"):
            name = f"{self.mount}-{role}"
            made = self.admin.create_approle(name, self._policies(role), token_period="60s")
            path = self.directory / f"{role}-secret-id"
            path.touch(0o600)
            path.write_text(made.secret_id)
            self.watch.note(made.secret_id, "secret id")
            (self.directory / f"{role}-role-id").write_text(made.role_id)

    def _policies(self, role: str) -> list[str]:
        also = [f"{self.mount}-rotator"] if self._drives_itself else []
        return [f"{self.mount}-{role}", *also]

    def write_policies(self, *, server: str = SERVER_POLICY) -> None:
        """Write what the server and the rotator may do; `server` may be narrowed for a while."""
        place = {"mount": self.mount, "key": "*"}
        for role, text in (("server", server), ("rotator", ROTATOR_POLICY)):
            policy = text.format(**place) + OWN_TOKEN_POLICY
            self.admin.write_policy(f"{self.mount}-{role}", policy)

    def login(self, role: str) -> dict[str, Any]:
        """Return the settings of a login as `server` or `rotator`."""
        return {
            "method": "approle",
            "role_id": (self.directory / f"{role}-role-id").read_text(),
            "secret_id_file": str(self.directory / f"{role}-secret-id"),
        }

    @contextmanager
    def paused_policy(self) -> Iterator[None]:
        """Leave the server nothing but its own token."""
        self.write_policies(server="")
        try:
            yield
        finally:
            self.write_policies()

    @contextmanager
    def without_login(self) -> Iterator[None]:
        """End every token that the server's role has given and its secret ids."""
        role = f"{self.mount}-server"
        self.admin.call("DELETE", f"auth/approle/role/{role}")
        self._revoke_tokens(role)
        try:
            yield
        finally:
            made = self.admin.create_approle(role, self._policies("server"), token_period="60s")
            role_id = (self.directory / "server-role-id").read_text()
            self.admin.call("POST", f"auth/approle/role/{role}/role-id", {"role_id": role_id})
            (self.directory / "server-secret-id").write_text(made.secret_id)
            self.watch.note(made.secret_id, "secret id")

    def end_tokens(self) -> int:
        """End every token that the server has at present; return how many."""
        return self._revoke_tokens(f"{self.mount}-server")

    def _revoke_tokens(self, policy: str) -> int:
        admin, ended = self.admin, 0
        for accessor in admin.call("LIST", "auth/token/accessors")["data"]["keys"]:
            # Those of ended commands may vanish in between.
            with suppress(VaultError):
                found = admin.call("POST", "auth/token/lookup-accessor", {"accessor": accessor})
                if policy in found["data"]["policies"]:
                    admin.call("POST", "auth/token/revoke-accessor", {"accessor": accessor})
                    ended += 1
        return ended

    @contextmanager
    def throttled(self) -> Iterator[None]:
        """Have the Vault answer 429 to nearly all that is asked of the engine."""
        self.admin.limit_rate(self.mount, f"{self.mount}/", 0.01)
        try:
            yield
        finally:
            self.admin.unlimit_rate(self.mount)


def await_that(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> float:
    """Return how long it took until `condition()`; AssertionError when it takes too long."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"{what}: not within {seconds} s"
        time.sleep(_PAUSE_SECONDS)
    return time.monotonic() - began


@contextmanager
def audit_device_away(vault: Any) -> Iterator[None]:
    """Have the audit file refuse every line, as a full disk does: the Vault answers 500 to all."""
    path = Path(vault.audit_path)
    path.rename(path.with_suffix(".before"))
    path.mkdir()
    os.kill(vault.process_id, signal.SIGHUP)
    await_that(lambda: not _reads(vault), "the audit device fails")
    try:
        yield
    finally:
        path.rmdir()


def _reads(vault: Any) -> bool:
    headers = {"X-Vault-Token": vault.token}
    answer = httpx.get(f"{vault.address}/v1/sys/mounts", headers=headers, trust_env=False)
    return answer.status_code == 200
