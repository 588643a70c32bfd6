"""Permissions, roles and limits of administrators: one rule for every way in.

A permission is named by noun and verb, such as ``clients:write``. A role is a named set of
permissions. Limits narrow a role to some resource servers or organisations: its holder learns
nothing of others.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from authz_server.clients.properties import ClientProperties
from authz_server.errors import OperatorError
from authz_server.settings import Settings
from authz_server.settings.admin import PERMISSIONS

CallerKind = Literal["client", "operator", "command"]
#: The way by which an act comes in, as records name it.
Way = Literal["api", "console", "cli"]

#: The age that the log-in of an operator may have for an act of :data:`FRESH_PERMISSIONS`.
FRESH_FOR = timedelta(minutes=5)
#: The permissions whose acts need a fresh log-in of an operator.
FRESH_PERMISSIONS = frozenset(
    {"secrets:write", "keys:rotate", "keys:revoke", "operators:write", "changes:approve"}
)
#: As long as an audit record has room for.
_MAXIMUM_ACTOR_CHARACTERS = 180


class PermissionMissingError(OperatorError):
    """The caller does not have a permission.

    Args:
        permission: the permission.
    """

    def __init__(self, permission: str) -> None:
        super().__init__(f"The permission {permission} is required.")
        self.permission = permission


class LimitedCallerError(OperatorError):
    """The act concerns the whole server, and the caller is limited to a part of it."""

    def __init__(self) -> None:
        super().__init__("This concerns the whole server, and your permission is limited.")


class AuthenticationTooOldError(OperatorError):
    """The act needs a log-in of the operator that is at most :data:`FRESH_FOR` old."""

    def __init__(self) -> None:
        minutes = FRESH_FOR // timedelta(minutes=1)
        super().__init__(f"Log in again: this needs a log-in of the last {minutes} minutes.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The part of the server that an administrator is limited to.

    Attributes:
        resource_servers: the ids of the resource servers; None: all.
        organisations: the organisations of clients and resource servers; None: all.
    """

    resource_servers: frozenset[str] | None = None
    organisations: frozenset[str] | None = None

    def __bool__(self) -> bool:
        """Return whether there is a limit."""
        return self.resource_servers is not None or self.organisations is not None

    def is_within(self, other: "Limits") -> bool:
        """Return whether the other limits admit everything that these admit."""
        pairs = (
            (self.resource_servers, other.resource_servers),
            (self.organisations, other.organisations),
        )
        return all(
            wide is None or (narrow is not None and narrow <= wide) for narrow, wide in pairs
        )

    def merged(self, other: "Limits") -> "Limits":
        """Return the limits of a holder of both; they admit nothing that neither admits.

        One kind of limit is widened by the other's; of different kinds each stays, which admits
        less than the two do together. If both have both kinds, and differ in both, the result is
        their intersection: with the union, a resource server of the one would be admitted with an
        organisation of the other.
        """
        for narrow, wide in ((self, other), (other, self)):
            if narrow.is_within(wide):
                return wide
        servers = self.resource_servers, other.resource_servers
        organisations = self.organisations, other.organisations
        differ = servers[0] != servers[1] and organisations[0] != organisations[1]
        if differ and None not in {*servers, *organisations}:
            return Limits(resource_servers=_common(*servers), organisations=_common(*organisations))
        return Limits(resource_servers=_merged(*servers), organisations=_merged(*organisations))


UNLIMITED = Limits()


def limits_of(properties: ClientProperties) -> Limits:
    """Return the limits of a client that administers, by its registration."""
    return make_limits(properties.admin_resource_servers, properties.admin_organisations)


def make_limits(resource_servers: Iterable[str], organisations: Iterable[str]) -> Limits:
    """Return the limits of two lists; an empty list does not limit."""
    return Limits(
        resource_servers=frozenset(resource_servers) or None,
        organisations=frozenset(organisations) or None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A named set of permissions.

    Attributes:
        name: its name.
        permissions: by noun and verb.
        limited: whether it is given with limits: ``may``, ``must`` or ``never``.
    """

    name: str
    permissions: frozenset[str]
    limited: Literal["may", "must", "never"] = "may"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The permissions that a caller has by one role, or by its token.

    Attributes:
        permissions: by noun and verb.
        limits: the part of the server for which it has them.
        role: the role; empty for a client, whose token has the permissions.
    """

    permissions: frozenset[str]
    limits: Limits = UNLIMITED
    role: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A client or an operator that administers the server.

    Attributes:
        name: the client's id, or the operator's name.
        kind: ``client``, ``operator``, or ``command`` for the command line on the server itself,
            which has every permission.
        way: the way by which it comes in.
        grants: its permissions with their limits.
        operator_id: the id of the operator; empty for others.
        authenticated_at: the time of the operator's log-in; None for others.
        groups: the groups that gave an operator its roles at the log-in; empty for others.
        scheme: the authentication scheme of a client's token.
    """

    name: str
    kind: CallerKind
    way: Way
    grants: tuple[Grant, ...]
    operator_id: str = ""
    authenticated_at: datetime | None = None
    groups: tuple[str, ...] = ()
    scheme: str = ""

    @property
    def permissions(self) -> frozenset[str]:
        """All permissions, each of which may be limited."""
        return frozenset().union(*(grant.permissions for grant in self.grants))

    @property
    def actor(self) -> str:
        """The recorded actor of its acts, such as ``operator:ada via console``."""
        kind = "client" if self.kind == "client" else "operator"
        # The id of a client may be the address of its metadata.
        return f"{kind}:{self.name[:_MAXIMUM_ACTOR_CHARACTERS]} via {self.way}"

    @property
    def key(self) -> str:
        """The same text for each call of the same caller, by whichever way."""
        return f"{self.kind}:{self.operator_id or self.name}"

    def limits_for(self, *permissions: str) -> Limits | None:
        """Return the limits of a permission, or of several; None: the caller has none of them.

        The empty permission is that of every caller.
        """
        if "" in permissions or self.kind == "command":
            return UNLIMITED
        found = [
            grant.limits for grant in self.grants if not grant.permissions.isdisjoint(permissions)
        ]
        if not found:
            return None
        limits, *others = found
        for other in others:
            limits = limits.merged(other)
        return limits


def authorise(
    caller: Caller,
    permission: str,
    *,
    now: datetime,
    whole_server: bool = False,
    instead: Iterable[str] = (),
) -> Limits:
    """Return the limits within which the caller may do something.

    Args:
        caller: the caller.
        permission: the permission that the act needs; empty: every caller has it.
        now: the present time.
        whole_server: whether the act concerns the whole server, so that no limited caller has it.
        instead: the permissions each of which is enough as well.

    Raises:
        PermissionMissingError: the caller does not have the permission.
        LimitedCallerError: the caller has it for a part of the server alone.
        AuthenticationTooOldError: the log-in of the operator is too old.
    """
    limits = caller.limits_for(permission, *instead)
    if limits is None:
        raise PermissionMissingError(permission)
    if whole_server and limits:
        raise LimitedCallerError
    if permission in FRESH_PERMISSIONS:
        require_fresh(caller, now=now)
    return limits


def require_fresh(caller: Caller, *, now: datetime) -> None:
    """Require a fresh log-in of an operator.

    Args:
        caller: the caller.
        now: the present time.

    Raises:
        AuthenticationTooOldError: the log-in is older than :data:`FRESH_FOR`.
    """
    if caller.kind != "operator":
        return
    since = caller.authenticated_at
    if since is None or now - since > FRESH_FOR:
        raise AuthenticationTooOldError


_READS = frozenset(name for name in PERMISSIONS if name.endswith(":read"))
_JUDGES = frozenset({"clients:read", "scopes:read", "resource-servers:read", "changes:read"})

#: The roles that this release ships.
ROLES: Mapping[str, Role] = {
    role.name: role
    for role in (
        Role(name="auditor", permissions=_READS),
        Role(name="client-manager", permissions=_JUDGES | {"clients:write", "secrets:write"}),
        Role(
            name="api-owner",
            permissions=_JUDGES | {"resource-servers:write", "scopes:write", "audit:read"},
            limited="must",
        ),
        Role(
            name="security-officer",
            permissions=_READS
            | {
                "resource-servers:write",
                "tokens:revoke",
                "keys:rotate",
                "keys:revoke",
                "operators:write",
                "changes:approve",
            },
            limited="never",
        ),
        Role(name="approver", permissions=_JUDGES | {"keys:read", "changes:approve"}),
    )
}


def roles_of(settings: Settings) -> Mapping[str, Role]:
    """Return the roles by name: the shipped ones, and those of ``[admin.roles]``."""
    further = {
        name: Role(name=name, permissions=frozenset(role.permissions))
        for name, role in settings.admin.roles.items()
    }
    return {**further, **ROLES}


def make_grants(settings: Settings, assigned: Iterable[tuple[str, Limits]]) -> tuple[Grant, ...]:
    """Return the grants of an operator with these roles.

    A role that the settings no longer have grants nothing.

    Args:
        settings: the checked settings.
        assigned: the names of roles, each with its limits.
    """
    roles = roles_of(settings)
    return tuple(
        Grant(permissions=roles[name].permissions, limits=limits, role=name)
        for name, limits in assigned
        if name in roles
    )


def _common(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str]:
    return (one or frozenset()) & (other or frozenset())


def _merged(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return one if other is None else other
    return one | other
