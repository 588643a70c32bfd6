"""Where in a Vault a ring's keys are, as its URI says: for policies and their examination."""

from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

DEFAULT_VAULT = "main"
VAULT_SCHEMES = frozenset({"transit", "kv"})


class VaultPlace(NamedTuple):
    """A ring's key in a Vault.

    Attributes:
        scheme: ``transit`` or ``kv``.
        vault: The Vault's name in the settings.
        mount: Where the secrets engine is mounted.
        name: The transit key, or the folder of secrets.
    """

    scheme: str
    vault: str
    mount: str
    name: str


def find_place(uri: str) -> VaultPlace | None:
    """Return the place that a backend's URI names, or None if it is in no Vault."""
    parts = urlsplit(uri)
    if parts.scheme not in VAULT_SCHEMES:
        return None
    vault = parse_qs(parts.query).get("vault", [DEFAULT_VAULT])[0]
    if parts.scheme == "kv":
        return VaultPlace("kv", vault, unquote(parts.netloc), parts.path.strip("/"))
    whole = f"{parts.netloc}{parts.path}".strip("/")
    mount, _, name = whole.rpartition("/")
    return VaultPlace("transit", vault, mount, name)
