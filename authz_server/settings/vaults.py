"""The tables ``[keys.vaults.NAME]``: addresses, login and time-outs of a Vault or OpenBao."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

from msgspec import Meta

from authz_server.settings.constraints import Branch, is_loopback, refuse

#: Upper bound of a Vault request's duration, so that none occupies a thread for long.
LONGEST_CALL_MILLISECONDS = 5_000


class _LoginKeys(NamedTuple):
    required: frozenset[str]
    optional: frozenset[str] = frozenset()


_LOGIN_KEYS: Mapping[str, _LoginKeys] = MappingProxyType(
    {
        "approle": _LoginKeys(
            frozenset({"role_id", "secret_id_file"}), frozenset({"secret_id_wrapped"})
        ),
        "kubernetes": _LoginKeys(frozenset({"role"}), frozenset({"jwt_file"})),
        "jwt": _LoginKeys(frozenset({"jwt_file"}), frozenset({"role"})),
        "cert": _LoginKeys(
            frozenset({"certificate_file", "private_key_file"}), frozenset({"role"})
        ),
        "token": _LoginKeys(frozenset({"token_file"})),
    }
)


class VaultLoginSettings(Branch, frozen=True):
    """``[keys.vaults.NAME.login]``: login method and credentials."""

    method: Literal["approle", "kubernetes", "jwt", "cert", "token"]
    mount: str = ""
    role: str = ""
    role_id: str = ""
    secret_id_file: str = ""
    secret_id_wrapped: bool = False
    jwt_file: str = ""
    token_file: str = ""
    certificate_file: str = ""
    private_key_file: str = ""

    def __post_init__(self) -> None:
        keys = _LOGIN_KEYS[self.method]
        allowed = keys.required | keys.optional | {"method", "mount"}
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name in keys.required and not value:
                refuse(name, f"must be set for the login method {self.method}")
            if name not in allowed and value:
                refuse(name, f"does not apply to the login method {self.method}")


class VaultSettings(Branch, frozen=True):
    """``[keys.vaults.NAME]``: one Vault, with all of its nodes."""

    addresses: tuple[str, ...]
    login: VaultLoginSettings
    rotator_login: VaultLoginSettings | None = None
    namespace: str = ""
    ca_file: str = ""
    connect_timeout_milliseconds: Annotated[int, Meta(ge=1, le=LONGEST_CALL_MILLISECONDS)] = 300
    read_timeout_milliseconds: Annotated[int, Meta(ge=1, le=LONGEST_CALL_MILLISECONDS)] = 1_000
    total_timeout_milliseconds: Annotated[int, Meta(ge=1, le=LONGEST_CALL_MILLISECONDS)] = 1_500

    def __post_init__(self) -> None:
        if not self.addresses:
            refuse("addresses", "must name at least one node")
        for position, address in enumerate(self.addresses):
            _require_vault_address(f"addresses[{position}]", address)
        for name in ("connect_timeout_milliseconds", "read_timeout_milliseconds"):
            if getattr(self, name) > self.total_timeout_milliseconds:
                refuse(name, "must not exceed total_timeout_milliseconds")

    def require_encrypted(self) -> None:
        """Refuse plain http to other machines."""
        for position, address in enumerate(self.addresses):
            parts = urlsplit(address)
            if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
                refuse(
                    f"addresses[{position}]", "a Vault on another machine must be reached by https"
                )


def _require_vault_address(key: str, address: str) -> None:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    plain = not (parts.path or parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme not in ("https", "http") or not parts.hostname or not plain:
        refuse(
            key,
            f"{address!r} is not the address of a Vault",
            "Write it as https://host:8200, without a path or a slash at its end.",
        )
