"""Make the stored clients, resource servers and scopes agree with declarative files.

Everything happens in one transaction, with the audit records of the single changes and one of the
whole. A dry run makes the same changes and undoes them, so that it meets the same refusals.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.sink import CONTEXT, store_audit_record
from authz_server.database.change_feed import defer_changes
from authz_server.errors import ConflictError
from authz_server.operations.declarative.applied_registrations import (
    ClientStep,
    InitialSecrets,
    ResourceServerStep,
)
from authz_server.operations.declarative.applied_scopes import ScopeStep
from authz_server.operations.declarative.document import Declaration
from authz_server.operations.declarative.plan import Plan
from authz_server.operations.declarative.secret_directory import SecretDirectory
from authz_server.operations.one_transaction import run_together

# Serialises applications: arbitrary, but the same in every process.
_APPLICATION_LOCK = 0x61757468_7A617070


def apply_declaration(  # noqa: PLR0913 - what, how and by whom
    services: Services,
    declaration: Declaration,
    *,
    actor: str,
    prune: bool = False,
    dry_run: bool = False,
    expected: Plan | None = None,
    secret_directory: Path | None = None,
    imported_secrets: Path | None = None,
) -> Plan:
    """Make the server agree with files; return the changes.

    Args:
        services: the parts of the server.
        declaration: the entries of the files.
        actor: the recorded actor.
        prune: remove what the files do not have, in the sections that they have.
        dry_run: undo everything at the end, and write no secret.
        expected: the plan that was agreed to; None: any.
        secret_directory: the folder for the secrets of new clients; None: none is made.
        imported_secrets: a folder with existing secrets of new clients; None: there are none.

    Raises:
        InvalidChangeError: a value breaks a rule.
        NotFoundError: the catalogue has no scope below a ``/*``.
        ConflictError: an id or a spelling is taken, what is to be removed is in use, or the plan is
            another than the expected one.
        OSError: a secret cannot be written or read.
    """
    directory = SecretDirectory(secret_directory) if secret_directory is not None else None
    secrets = InitialSecrets(
        directory=directory,
        imported=imported_secrets,
        wanted=directory is not None,
        writes=not dry_run,
    )

    def apply(joined: Services, session: Session) -> Plan:
        with (
            _recording(joined, session, declaration),
            defer_changes(session, discard=dry_run),
        ):
            plan = _make_changes(joined, session, declaration, secrets, actor, prune=prune)
            if expected is not None and plan != expected:
                raise ConflictError(
                    "The stored clients, resource servers or scopes have changed since the plan "
                    "was shown: nothing was changed. Run the command again."
                )
            if plan.changes:
                _record_whole(joined, session, declaration, plan, actor)
            if directory is not None:
                directory.sync()
            return plan

    try:
        return run_together(services, apply, dry_run=dry_run)
    except BaseException:
        if directory is not None:
            directory.discard()
        raise


def _make_changes(  # noqa: PLR0913 - what, how and by whom
    services: Services,
    session: Session,
    declaration: Declaration,
    secrets: InitialSecrets,
    actor: str,
    *,
    prune: bool,
) -> Plan:
    scopes = ScopeStep(services, session, declaration, actor)
    servers = ResourceServerStep(services, session, declaration, actor, secrets)
    clients = ClientStep(services, session, declaration, actor, secrets)
    changes = scopes.bring_up_to_date()
    if prune:
        changes += clients.remove_others()
    names = scopes.names()
    changes += servers.bring_up_to_date(names)
    changes += clients.bring_up_to_date(names)
    if prune:
        changes += servers.remove_others()
        changes += scopes.remove_others()
    return Plan(
        digest=declaration.digest,
        changes=tuple(changes),
        unowned_scopes=clients.unowned_scopes(),
    )


@contextmanager
def _recording(services: Services, session: Session, declaration: Declaration) -> Iterator[None]:
    """Let one application run at a time, and put the digest of the files into every record."""
    if services.database.engine.dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(_APPLICATION_LOCK)))
    session.info[CONTEXT] = {"declaration": declaration.digest}
    try:
        yield
    finally:
        del session.info[CONTEXT]


def _record_whole(
    services: Services, session: Session, declaration: Declaration, plan: Plan, actor: str
) -> None:
    store_audit_record(
        session,
        at=services.clock(),
        actor=actor,
        action="declaration.applied",
        subject=plan.digest,
        files=[file.name for file in declaration.files],
        added=plan.count("add"),
        changed=plan.count("change"),
        removed=plan.count("remove"),
    )
