"""The table of operations that the admin API carries out, filled by the modules beside."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Concatenate, ParamSpec, TypeVar

from authz_server.cli.remote.api import AdminApi

P = ParamSpec("P")
T = TypeVar("T")

#: The module with the requests of the operations of a module.
PLACES = {
    "audit.search": "records",
    "audit.verify": "records",
    "audit.who": "records",
    "change_decisions": "changes",
    "changes": "changes",
    "client_search": "clients",
    "client_secrets": "secrets",
    "clients": "clients",
    "declarative.apply": "declarations",
    "declarative.export": "declarations",
    "due_secrets": "secrets",
    "event_streams": "event_streams",
    "explain": "tokens",
    "explain_token": "tokens",
    "keys.list": "keys",
    "keys.orders": "keys",
    "keys.status": "keys",
    "least_privilege": "records",
    "operator_roles": "operators",
    "operator_sessions": "operators",
    "operators": "operators",
    "passkeys": "operators",
    "programmes": "stops",
    "registration_tokens": "registration_tokens",
    "reports": "records",
    "resource_servers": "clients",
    "revocation": "tokens",
    "scope_changes": "scopes",
    "scopes": "scopes",
    "secret_rotation": "secrets",
    "stops": "stops",
    "tokens": "tokens",
}
_OPERATIONS = "authz_server.operations."

#: The requests of each operation of the modules that were imported.
TABLE: dict[Callable[..., Any], Callable[..., Any]] = {}


def carries_out(
    operation: Callable[Concatenate[Any, P], T],
) -> Callable[[Callable[Concatenate[AdminApi, P], T]], Callable[Concatenate[AdminApi, P], T]]:
    """Return a decorator of the requests that carry out an operation.

    They have its arguments and its result, with the API in the place of its services; the actor,
    which the server records, is left out of account.

    Args:
        operation: the operation.
    """

    def keep(
        requests: Callable[Concatenate[AdminApi, P], T],
    ) -> Callable[Concatenate[AdminApi, P], T]:
        TABLE[operation] = requests
        return requests

    return keep


def find_remote(
    operation: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[AdminApi, P], T]:
    """Return the requests that carry out an operation; KeyError if there are none."""
    if operation not in TABLE:
        place = PLACES[operation.__module__.removeprefix(_OPERATIONS)]
        import_module(f"authz_server.cli.remote.{place}")
    return TABLE[operation]
