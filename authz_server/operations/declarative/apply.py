"""Make what is stored agree with declarative files.

Everything happens in one transaction, with the audit records of the single changes and one of the
whole. A dry run makes the same changes and undoes them, so that it meets the same refusals.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.records import CONTEXT, store_audit_record
from authz_server.clients.secret_changes import PreparedSecret
from authz_server.database.change_feed import defer_changes
from authz_server.database.statistics import note_changes
from authz_server.errors import ConflictError
from authz_server.operations.approvals import CONTROL, Control, NotedAct
from authz_server.operations.declarative.application import Application
from authz_server.operations.declarative.applied_operators import OperatorStep
from authz_server.operations.declarative.applied_programmes import ProgrammeStep
from authz_server.operations.declarative.applied_registrations import (
    ClientStep,
    ResourceServerStep,
)
from authz_server.operations.declarative.applied_scopes import ScopeStep
from authz_server.operations.declarative.document import Declaration
from authz_server.operations.declarative.imported_secrets import find_imports, hash_imports
from authz_server.operations.declarative.initial_secrets import InitialSecrets
from authz_server.operations.declarative.limits import as_arguments
from authz_server.operations.declarative.plan import Plan, diff_of
from authz_server.operations.declarative.secret_directory import SecretDirectory, read_imported
from authz_server.operations.one_transaction import run_together
from authz_server.operations.views import revision_of

# Serialises applications: arbitrary, but the same in every process.
_APPLICATION_LOCK = 0x61757468_7A617070
#: The name of an application among the approved acts.
OPERATION = "apply_declaration"
#: The id of several secrets of one change.
SEVERAL = "several"


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
    find_imported = partial(read_imported, imported_secrets)
    imports = {} if dry_run else find_imports(services, declaration, find_imported)
    application = Application(
        declaration=declaration,
        actor=actor,
        prune=prune,
        undone=dry_run,
        expected=None if expected is None else revision_of(expected),
        secrets=InitialSecrets(
            keep=None if directory is None else directory.write,
            find_imported=find_imported,
            prepared=hash_imports(services, declaration, imports),
            writes=not dry_run,
        ),
    )

    def apply(joined: Services, session: Session) -> Plan:
        plan = apply_within(joined, session, application)
        if directory is not None:
            directory.sync()
        return plan

    try:
        return run_together(services, apply, dry_run=dry_run)
    except BaseException:
        if directory is not None:
            directory.discard()
        raise


def apply_within(services: Services, session: Session, application: Application) -> Plan:
    """Make the server agree with files, in a transaction of the caller; return the changes.

    Under a control of approvals, the whole application is one act: it waits if a part of it does.

    Args:
        services: the parts of the server, joined to the transaction.
        session: the transaction.
        application: what is applied.

    Raises:
        InvalidChangeError: a value breaks a rule.
        NotFoundError: the catalogue has no scope below a ``/*``.
        ConflictError: as for :func:`apply_declaration`.
        OutsideLimitsError: an entry lies outside the limits.
        StaleChangeError: an approved application has another plan now.
        OSError: a secret cannot be kept or read.
    """
    declaration = application.declaration
    with (
        _recording(services, session, declaration),
        defer_changes(session, discard=application.undone),
    ):
        with _separate_control(session) as parts:
            plan = _make_changes(services, session, application)
        if application.expected not in {None, revision_of(plan)}:
            raise ConflictError(
                "The stored entries have changed since the plan "
                "was shown: nothing was changed. Run the command again."
            )
        if plan.changes:
            _record_whole(services, session, declaration, plan, application.actor)
            note_changes(session, len(plan.changes))
        if parts is not None:
            _note_whole(session, application, plan, parts)
        return plan


@contextmanager
def _separate_control(session: Session) -> Iterator[Control | None]:
    """Yield a control that collects the acts of the block; None: the session has none."""
    control: Control | None = session.info.get(CONTROL)
    if control is None:
        yield None
        return
    session.info[CONTROL] = parts = Control(requester=control.requester)
    try:
        yield parts
    finally:
        session.info[CONTROL] = control


def _note_whole(session: Session, application: Application, plan: Plan, parts: Control) -> None:
    """Note an application as one act, because it is one transaction.

    Args:
        session: the transaction.
        application: the application.
        plan: its changes.
        parts: the acts of its parts.

    Raises:
        StaleChangeError: an approved application has another plan now.
    """
    control: Control = session.info[CONTROL]
    if not parts.noted and control.approved is None:
        return
    declaration, limits = application.declaration, as_arguments(application.limits)
    concerned = application.concerned
    operators = [change.id for change in plan.changes if change.noun == "operator"]
    act = NotedAct(
        acts=tuple(dict.fromkeys(name for act in parts.noted for name in act.acts)),
        actor=application.actor,
        operation=OPERATION,
        arguments={
            "files": [file.describe() for file in declaration.files],
            "prune": application.prune,
            "clients": [change.id for change in plan.changes if change.noun == "client"],
            **({"operators": operators} if operators else {}),
            **({"limits": limits} if limits else {}),
        },
        # An approver with limits sees the change of a caller with limits, if all of it lies within
        # those of the approver. Its requester always sees it.
        organisation=concerned.find_organisation(session) if limits else None,
        resource_servers=concerned.find_resource_servers(session) if limits else (),
        subject=f"declaration:{plan.digest}",
        basis=revision_of(plan),
        diff=diff_of(plan),
        secret=_join(application.secrets.made),
        files=tuple({"name": file.name, "text": file.text} for file in declaration.files),
    )
    # An approved application has the same plan, even if no part of it needs an approval now.
    control.note(act)


def _join(made: Mapping[str, PreparedSecret]) -> PreparedSecret | None:
    """Return several secrets as the one that a change has."""
    if not made:
        return None
    records = {owner: (each.id, each.record) for owner, each in made.items()}
    return PreparedSecret(SEVERAL, msgspec.json.encode(records).decode())


def _make_changes(services: Services, session: Session, application: Application) -> Plan:
    scopes = ScopeStep(services, session, application)
    servers = ResourceServerStep(services, session, application)
    clients = ClientStep(services, session, application)
    programmes = ProgrammeStep(services, session, application)
    operators = OperatorStep(services, session, application)
    changes = scopes.bring_up_to_date()
    if application.prune:
        changes += programmes.remove_others()
        changes += clients.remove_others()
    changes += servers.bring_up_to_date()
    changes += clients.bring_up_to_date()
    changes += programmes.bring_up_to_date()
    changes += operators.bring_up_to_date()
    if application.prune:
        changes += operators.remove_others()
        changes += servers.remove_others()
        changes += scopes.remove_others()
    return Plan(
        digest=application.declaration.digest,
        changes=tuple(changes),
        unowned_scopes=clients.unowned_scopes(),
    )


@contextmanager
def _recording(services: Services, session: Session, declaration: Declaration) -> Iterator[None]:
    """Let one application run at a time, and put the digest of the files into every record."""
    if services.database.engine.dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(_APPLICATION_LOCK)))
    # That of an approval; each record has a diff of its own.
    around: Mapping[str, object] = session.info.get(CONTEXT, {})
    kept = {name: value for name, value in around.items() if name != "diff"}
    session.info[CONTEXT] = {**kept, "declaration": declaration.digest}
    try:
        yield
    finally:
        session.info[CONTEXT] = around


def _record_whole(
    services: Services, session: Session, declaration: Declaration, plan: Plan, actor: str
) -> None:
    store_audit_record(
        session,
        at=services.corrected_clock(),
        actor=actor,
        action="declaration.applied",
        subject=plan.digest,
        files=[file.name for file in declaration.files],
        added=plan.count("add"),
        changed=plan.count("change"),
        removed=plan.count("remove"),
    )
