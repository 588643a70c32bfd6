"""The admin API as a resource server of this server: its scopes, and its registration."""

from dataclasses import dataclass

from sqlalchemy import select

from authz_server.assembly import Services
from authz_server.clients.models import ResourceServer
from authz_server.clients.registrations import ADMIN_IDENTIFIER
from authz_server.errors import ConflictError
from authz_server.operations.one_transaction import run_together
from authz_server.operations.resource_servers import create_resource_server
from authz_server.operations.scopes import add_scope
from authz_server.scopes.definition import Risk

#: The id of its registration.
ADMIN_SERVER = "authz-server-admin"
#: Its scopes, which are the permissions of its callers: name, risk and description.
ADMIN_SCOPES: tuple[tuple[str, Risk, str], ...] = (
    ("clients:read", "read", "List and show clients."),
    ("clients:write", "write", "Register, change, enable, disable and delete clients."),
    ("secrets:write", "write", "Add, rotate and end secrets."),
    ("scopes:read", "read", "List and show scopes."),
    ("scopes:write", "write", "Add scopes and assign them to resource servers."),
    ("resource-servers:read", "read", "List and show resource servers."),
    ("resource-servers:write", "write", "Register and change resource servers."),
    ("tokens:revoke", "write", "Revoke tokens; set and lift stops."),
    ("keys:read", "read", "List and show key rings and their keys."),
    ("keys:rotate", "write", "Rotate, activate and taint keys; freeze and unfreeze rings."),
    ("keys:revoke", "write", "Revoke keys."),
    ("audit:read", "read", "List audit records."),
    ("settings:read", "read", "Show the settings, without secrets."),
    ("changes:read", "read", "List and show changes that wait for a second person."),
    ("changes:approve", "write", "Approve and reject changes."),
    ("operators:read", "read", "List and show operators."),
    ("operators:write", "write", "Create, change, disable, enable and delete operators."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminRegistration:
    """The registration of the admin API.

    Attributes:
        id: the id of the resource server.
        identifier: its identifier, the audience of its tokens.
        created: True if it was not registered before.
        added_scopes: the scopes that were not registered before.
    """

    id: str
    identifier: str
    created: bool
    added_scopes: tuple[str, ...]


def register_admin_api(services: Services, *, actor: str) -> AdminRegistration:
    """Register the admin API as a resource server with its scopes; a repetition changes nothing.

    Args:
        services: the parts of the server.
        actor: the recorded actor.

    Raises:
        ConflictError: another resource server has the identifier, or owns one of the scopes.
    """

    def register(services: Services) -> AdminRegistration:
        server_id = _find_server(services)
        created = server_id is None
        if server_id is None:
            registered = create_resource_server(
                services,
                actor=actor,
                id=ADMIN_SERVER,
                name="Admin API",
                identifier=ADMIN_IDENTIFIER,
                with_secret=False,
            )
            server_id = registered.resource_server.id
        return AdminRegistration(
            id=server_id,
            identifier=ADMIN_IDENTIFIER,
            created=created,
            added_scopes=_add_scopes(services, server_id, actor),
        )

    return run_together(services, lambda joined, _: register(joined))


def _find_server(services: Services) -> str | None:
    query = select(ResourceServer.client_id).where(ResourceServer.identifier == ADMIN_IDENTIFIER)
    with services.transaction() as session:
        return session.scalar(query)


def _add_scopes(services: Services, server_id: str, actor: str) -> tuple[str, ...]:
    with services.transaction() as session:
        known = {scope.name: scope for scope in services.scopes.list_scopes(session)}
    added = []
    for name, risk, description in ADMIN_SCOPES:
        scope = known.get(name)
        if scope is None:
            add_scope(
                services,
                actor=actor,
                name=name,
                risk=risk,
                description=description,
                resource_server_id=server_id,
            )
            added.append(name)
        elif scope.resource_server_id != server_id:
            owner = scope.resource_server_id or "no resource server"
            raise ConflictError(
                f"The scope {name} belongs to {owner}. "
                f"`authz-server scope assign {name} --resource-server {server_id} --take-over` "
                "gives it to the admin API."
            )
    return tuple(added)
