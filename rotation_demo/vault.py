"""Acts of the security team in its OpenBao: an engine, a key, and an identity for each of three.

The server may sign and read; the rotator may make versions and raise the floor for signing; people
may do in an emergency what both may not. Root is used for this and for nothing else.
"""

from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hvac.exceptions import VaultError

from support.openbao import RaftServer

MOUNT = "transit"
#: Tokens that can be renewed for ever, each time for so long.
_PERIODIC = {"token_period": "60s"}


@dataclass(frozen=True, slots=True)
class VaultKey:
    """A transit key with who may use it.

    Attributes:
        server: The OpenBao.
        name: The key's.
        logins: The AppRole logins of ``server`` and ``rotator`` as settings name them.
        emergency_token: What a person of the security team is given to revoke with.
    """

    server: RaftServer
    name: str
    logins: dict[str, dict[str, str]]
    emergency_token: str

    @property
    def uri(self) -> str:
        """The ring's backend in the settings."""
        return f"transit://{MOUNT}/{self.name}"


def prepare_key(server: RaftServer, name: str, directory: Path) -> VaultKey:
    """Make the transit key ``name`` with its identities; secret ids are written to ``directory``.

    Their policies are written later: the product itself says what has to be in them.
    """
    admin = server.admin()
    if f"{MOUNT}/" not in admin.client.sys.list_mounted_secrets_engines()["data"]:
        admin.enable_transit(MOUNT)
    admin.create_key(name, mount=MOUNT)
    logins = {}
    for role in ("server", "rotator"):
        identity = f"{name}-{role}"
        credentials = admin.create_approle(identity, [identity], **_PERIODIC)
        path = directory / f"{name}-{role}-secret-id"
        path.touch(0o600)
        path.write_text(credentials.secret_id, encoding="ascii")
        logins[role] = {
            "method": "approle",
            "role_id": credentials.role_id,
            "secret_id_file": str(path),
        }
    token = admin.create_token([f"{name}-emergency"], ttl="10m")
    return VaultKey(server, name, logins, token)


def grant(key: VaultKey, policies: Iterable[Mapping[str, str]]) -> None:
    """Write the policies that ``keys policy --json`` printed, for this key's identities."""
    admin = key.server.admin()
    for policy in policies:
        admin.write_policy(f"{key.name}-{policy['role']}", policy["policy"])


def is_fenced(key: VaultKey, version: int) -> bool:
    """Tell whether OpenBao refuses to sign with that version, even for root."""
    body = {"input": b64encode(b"to be refused").decode(), "key_version": version}
    try:
        key.server.admin().call("POST", f"{MOUNT}/sign/{key.name}", body)
    except VaultError as error:
        return "minimum encryption key version" in str(error)
    return False
