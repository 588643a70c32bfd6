"""Connection and login of each Vault, for the server, the rotator or an operator.

The files of a login are checked here and not when the settings are loaded: the server cannot read
the rotator's files, nor the rotator the server's.
"""

import os
from collections.abc import Mapping
from typing import Literal

import msgspec

from authz_server.settings import RuleError, Settings, SettingsError
from authz_server.settings.sources import require_present, require_private
from authz_server.settings.vaults import VaultLoginSettings
from keys.backends.vault.settings import VaultAccess, VaultLogin

TOKEN_VARIABLE = "VAULT_TOKEN"  # noqa: S105 - the name of a variable
_KUBERNETES_JWT = "/var/run/secrets/kubernetes.io/serviceaccount/token"
_FILES = ("certificate_file", "jwt_file", "private_key_file", "secret_id_file", "token_file")

Identity = Literal["server", "rotator", "operator"]


def vault_accesses(
    settings: Settings,
    as_: Identity,
    environ: Mapping[str, str] = os.environ,
    *,
    require_files: bool = True,
) -> dict[str, VaultAccess]:
    """Return the access to every configured Vault, by name; see :func:`vault_access`."""
    return {
        name: vault_access(settings, name, as_, environ, require_files=require_files)
        for name in settings.keys.vaults
    }


def vault_access(
    settings: Settings,
    name: str,
    as_: Identity,
    environ: Mapping[str, str] = os.environ,
    *,
    require_files: bool = True,
) -> VaultAccess:
    """Return the access to the Vault ``keys.vaults.NAME``.

    Args:
        settings: validated settings.
        name: the name of the Vault.
        as_: ``server``, ``rotator`` (its login if configured, else the server's) or ``operator``,
            whose token is in the environment variable ``VAULT_TOKEN``.
        environ: the environment variables.
        require_files: whether to check the files of the login here; else each log-in does.

    Raises:
        SettingsError: there is no such Vault, a file of the login is missing or open to others, or
            the operator's token is not set.
    """
    vault = settings.keys.vaults.get(name)
    key = f"keys.vaults.{name}"
    if vault is None:
        raise SettingsError("there is no such Vault", key=key)
    try:
        require_present(f"{key}.ca_file", vault.ca_file)
        if as_ == "operator":
            login = _operator_login(environ)
        elif as_ == "rotator" and vault.rotator_login is not None:
            login = _login(settings, vault.rotator_login, f"{key}.rotator_login", require_files)
        else:
            login = _login(settings, vault.login, f"{key}.login", require_files)
    except RuleError as error:
        raise SettingsError(error.problem, key=error.key, remedy=error.remedy) from error
    return VaultAccess(
        addresses=vault.addresses,
        login=login,
        namespace=vault.namespace,
        ca_file=vault.ca_file,
        connect_timeout_seconds=vault.connect_timeout_milliseconds / 1_000,
        read_timeout_seconds=vault.read_timeout_milliseconds / 1_000,
        total_timeout_seconds=vault.total_timeout_milliseconds / 1_000,
    )


def _operator_login(environ: Mapping[str, str]) -> VaultLogin:
    token = environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        raise SettingsError(
            f"the environment variable {TOKEN_VARIABLE} is not set",
            remedy="Log in to the Vault and set it to your token.",
        )
    return VaultLogin(method="token", token=token)


def _login(
    settings: Settings,
    login: VaultLoginSettings,
    key: str,
    require_files: bool,  # noqa: FBT001 - passed on
) -> VaultLogin:
    # The platform sets the mode of a service account's token.
    private = settings.environment == "production" and login.method != "kubernetes"
    for name in _FILES if require_files else ():
        path = getattr(login, name)
        # An agent may write the token after the server has started.
        if name != "token_file":
            require_present(f"{key}.{name}", path)
        if private and name != "certificate_file":
            require_private(f"{key}.{name}", path)
    values = msgspec.structs.asdict(login)
    if login.method == "kubernetes" and not login.jwt_file:
        values["jwt_file"] = _KUBERNETES_JWT
    return VaultLogin(**values, private_files=private)
