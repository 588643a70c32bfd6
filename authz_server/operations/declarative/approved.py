"""The application of declarative files by others than the command line on the server."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from authz_server.assembly import Services
from authz_server.clients.secret_changes import PreparedSecret
from authz_server.operations.declarative.application import Application
from authz_server.operations.declarative.apply import apply_within
from authz_server.operations.declarative.document import (
    Declaration,
    SourceFile,
    parse_declaration,
)
from authz_server.operations.declarative.initial_secrets import InitialSecrets
from authz_server.operations.declarative.limits import read_arguments
from authz_server.operations.declarative.plan import Plan
from authz_server.operations.one_transaction import run_together


def read_files(files: Iterable[Mapping[str, str]]) -> Declaration:
    """Return the entries of files by their names and texts.

    Raises:
        InvalidChangeError: as for :func:`.document.read_declaration`.
    """
    return parse_declaration(SourceFile(name=each["name"], text=each["text"]) for each in files)


def apply_approved(  # noqa: PLR0913 - those that the change has
    services: Services,
    *,
    actor: str,
    files: Sequence[Mapping[str, str]],
    prune: bool,
    clients: Sequence[str],
    operators: Sequence[str] = (),
    limits: Mapping[str, Mapping[str, Any]] | None = None,
    prepared: PreparedSecret | None = None,
    require_roles: Callable[[Iterable[str]], None] = lambda _: None,
) -> Plan:
    """Apply files again that waited for an approval.

    Args:
        services: the parts of the server, with the transaction of the approval.
        actor: the recorded actor.
        files: their names and texts.
        prune: remove what the files do not have, in the sections that they have.
        clients: the ids of the clients that change.
        operators: the names of the operators that change.
        limits: the limits of the requester, by section.
        prepared: the secrets of new registrations, which were shown with the request.
        require_roles: refuses roles that the requester, who carries it out, may not give.

    Raises:
        OperatorError: a change is refused.
        StaleChangeError: the plan is another than the approved one.
    """
    del clients, operators
    application = Application(
        declaration=read_files(files),
        actor=actor,
        prune=prune,
        limits=read_arguments(limits or {}),
        secrets=InitialSecrets(prepared=_split(prepared)),
        require_roles=require_roles,
    )
    return run_together(
        services, lambda joined, session: apply_within(joined, session, application)
    )


def _split(prepared: PreparedSecret | None) -> dict[str, PreparedSecret]:
    """Return the secrets of a change by the id of their owner."""
    if prepared is None:
        return {}
    records = msgspec.json.decode(prepared.record, type=dict[str, tuple[str, str]])
    return {owner: PreparedSecret(*each) for owner, each in records.items()}
