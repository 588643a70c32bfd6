"""The roles of the provider's groups, as ``[admin.openid.roles]`` gives them."""

from collections.abc import Iterable

from authz_server.operations.permissions import (
    UNLIMITED,
    Grant,
    Limits,
    make_grants,
    make_limits,
    roles_of,
)
from authz_server.settings import Settings, SettingsError
from authz_server.settings.operators import GroupRole


class GroupRoles:
    """Gives the people of the provider the roles of their groups.

    Args:
        settings: the checked settings.

    Raises:
        SettingsError: a group has a role that does not exist, or one with limits that it cannot
            have.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._roles = {
            group: [self._checked(group, role) for role in roles]
            for group, roles in settings.admin.openid.roles.items()
        }

    def grants(self, groups: Iterable[str]) -> tuple[Grant, ...]:
        """Return what a member of these groups may do; nothing if none of them has a role."""
        assigned = [each for group in groups for each in self._roles.get(group, ())]
        return make_grants(self._settings, assigned)

    def _checked(self, group: str, given: str | GroupRole) -> tuple[str, Limits]:
        name, limits = (given, UNLIMITED) if isinstance(given, str) else _limited(given)
        key = f"admin.openid.roles.{group}"
        role = roles_of(self._settings).get(name)
        if role is None:
            raise SettingsError(f"there is no role {name!r}", key=key)
        if role.limited == "must" and limits.resource_servers is None:
            raise SettingsError(f"{name} needs the resource servers that it is for", key=key)
        if role.limited == "never" and limits:
            raise SettingsError(f"{name} is for the whole server, without limits", key=key)
        return name, limits


def _limited(given: GroupRole) -> tuple[str, Limits]:
    return given.role, make_limits(given.resource_servers, given.organisations)
