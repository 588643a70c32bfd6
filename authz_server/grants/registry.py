"""The grants in use, for the token endpoint, the metadata and registration."""

import inspect
from collections.abc import Mapping, Sequence

from authz_server.grants.base import TokenGrant
from authz_server.grants.client_credentials import ClientCredentialsGrant
from authz_server.grants.token_exchange import TokenExchangeGrant
from authz_server.plugin_manager import SERVER, PluginManager, ProvidedPart, require_distinct

#: The grants that need nothing of the settings.
BUILT_IN: tuple[type[TokenGrant], ...] = (ClientCredentialsGrant, TokenExchangeGrant)


def collect_grants(
    plugins: PluginManager, built_in: Sequence[type[TokenGrant]] = BUILT_IN
) -> Mapping[str, type[TokenGrant]]:
    """Return the built-in grants and those of the plugins, by grant type.

    Args:
        plugins: register further grants.
        built_in: the grants of the server.

    Raises:
        PluginError: a plugin fails, or two grants have one grant type.
    """
    provided = [(SERVER, grant) for grant in built_in]
    provided += plugins.registered("register_grants", _require_grant)
    return require_distinct(
        "grant type", [ProvidedPart(by, grant.GRANT_TYPE, grant) for by, grant in provided]
    )


def _require_grant(part: object) -> type[TokenGrant]:
    if not (inspect.isclass(part) and issubclass(part, TokenGrant)):
        raise TypeError(f"{part!r} is not a subclass of TokenGrant")
    if inspect.isabstract(part) or not getattr(part, "GRANT_TYPE", ""):
        raise TypeError(f"{part.__name__} has no GRANT_TYPE, or no authorize method")
    return part
