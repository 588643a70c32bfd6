"""Carry out approved changes: run the operation again that was noted."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.pending_changes import PendingChange
from authz_server.clients.models import Client
from authz_server.clients.secret_changes import PreparedSecret
from authz_server.errors import ConflictError
from authz_server.operations.client_secrets import add_secret
from authz_server.operations.clients import create_client, set_enabled, update_client
from authz_server.operations.declarative.apply import OPERATION as APPLY
from authz_server.operations.declarative.approved import apply_approved
from authz_server.operations.operator_roles import AssignedRole
from authz_server.operations.operators import (
    create_operator,
    renew_enrolment,
    set_operator_enabled,
    update_operator,
)
from authz_server.operations.registration_tokens import create_registration_token
from authz_server.operations.scope_changes import delete_scope, update_scope
from authz_server.operations.scopes import IMPORT, import_g2p_connect
from authz_server.operations.secret_rotation import rotate_secret
from authz_server.operations.stops import lift_stop
from keys.lifecycle.orders import Activate, Destroy

#: The operations that run in the transaction of the approval, by name.
OPERATIONS: Mapping[str, Callable[..., object]] = {
    "create_client": create_client,
    "update_client": update_client,
    "set_enabled": set_enabled,
    "add_secret": add_secret,
    "rotate_secret": rotate_secret,
    "lift_stop": lift_stop,
    "create_operator": create_operator,
    "update_operator": update_operator,
    "renew_enrolment": renew_enrolment,
    "set_operator_enabled": set_operator_enabled,
    "create_registration_token": create_registration_token,
    "update_scope": update_scope,
    "delete_scope": delete_scope,
    IMPORT: import_g2p_connect,
    APPLY: apply_approved,
}
#: The permission of each operation; an application of files has one for each section.
PERMISSIONS_OF: Mapping[str, str] = {
    "create_client": "clients:write",
    "update_client": "clients:write",
    "set_enabled": "clients:write",
    "add_secret": "secrets:write",
    "rotate_secret": "secrets:write",
    "lift_stop": "tokens:revoke",
    "create_operator": "operators:write",
    "update_operator": "operators:write",
    "renew_enrolment": "operators:write",
    "set_operator_enabled": "operators:write",
    "create_registration_token": "clients:write",
    "update_scope": "scopes:write",
    "delete_scope": "scopes:write",
    IMPORT: "scopes:write",
    "keys.activate": "keys:rotate",
    "keys.destroy": "keys:revoke",
}
#: The orders on key rings, which have transactions of their own.
ORDERS: Mapping[str, type[Activate | Destroy]] = {
    "keys.activate": Activate,
    "keys.destroy": Destroy,
}
#: The arguments that JSON holds as text.
_TYPES: Mapping[str, Any] = {
    "starts_at": datetime | None,
    "expires_at": datetime | None,
    "end_old_at": datetime | None,
    "end_old_when_unused": timedelta | None,
    "at": datetime | None,
    "roles": tuple[AssignedRole, ...],
}


def find_held(change: PendingChange) -> dict[str, object]:
    """Return the arguments that a row loses when it is settled: the secret and the files."""
    held: dict[str, object] = {}
    if change.secret_id and change.secret_record:
        held["prepared"] = PreparedSecret(change.secret_id, change.secret_record)
    if change.operation == APPLY:
        held["files"] = change.files or ()
    return held


def require_known(change: PendingChange) -> None:
    """Require that this release can carry a change out.

    During an upgrade, a node of a later release may have filed it.

    Raises:
        ConflictError: it cannot; the change stays as it is.
    """
    if change.operation not in OPERATIONS.keys() | ORDERS.keys():
        raise ConflictError(
            f"This node does not know the operation {change.operation!r}, which a later release has"
            " filed: decide on the change when every node has that release."
        )


def carry_out(
    services: Services, session: Session, change: PendingChange, held: Mapping[str, object]
) -> None:
    """Run the operation of a change, as its requester.

    Args:
        services: the parts of the server, with the transaction.
        session: the transaction, under the control of the change.
        change: the change.
        held: the arguments of :func:`find_held`, before the change was settled.

    Raises:
        OperatorError: the operation is refused, or what it rests on was changed.
    """
    arguments = read_arguments(change.arguments)
    if "client_id" in arguments:
        # Another change waits until this one is committed.
        session.get(Client, arguments["client_id"], with_for_update=True, populate_existing=True)
    OPERATIONS[change.operation](services, actor=change.requested_by, **{**arguments, **held})


def read_order(operation: str, arguments: Mapping[str, Any]) -> Activate | Destroy:
    """Return the order of a change, from its operation in :data:`ORDERS` and its arguments."""
    return ORDERS[operation](**read_arguments(arguments))


def read_arguments(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an operation from those that a change holds."""
    return {
        name: msgspec.convert(value, _TYPES[name]) if name in _TYPES else value
        for name, value in stored.items()
    }
