"""Programmes: named sets of scopes and clients that are stopped together."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.records import record_difference, store_audit_record
from authz_server.errors import ConflictError, InvalidChangeError, NotFoundError
from authz_server.operations.revocation import find_client_id
from authz_server.tokens.models import Programme, Stop

MAXIMUM_NAME_CHARACTERS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgrammeView:
    """A named set of scopes and clients that are stopped together.

    Attributes:
        scopes: canonical names.
        clients: the ids of clients.
    """

    name: str
    scopes: tuple[str, ...]
    clients: tuple[str, ...]


def define_programme(
    services: Services, name: str, *, scopes: Iterable[str], clients: Iterable[str], actor: str
) -> ProgrammeView:
    """Define a programme, or replace its scopes and clients.

    Args:
        services: the parts of the server.
        name: 1 to 100 printable characters, without spaces at its ends.
        scopes: scopes in any spelling; a trailing ``/*`` stands for all scopes below.
        clients: ids of clients.
        actor: the recorded actor.

    Raises:
        InvalidChangeError: the name is malformed, or the programme has neither scopes nor clients.
        NotFoundError: there is no such scope or client.
        ConflictError: the programme is stopped.
    """
    # Forms leave out spaces at the ends of what is entered: another programme would be stopped.
    is_plain = name.isprintable() and name == name.strip()
    if not is_plain or not 1 <= len(name) <= MAXIMUM_NAME_CHARACTERS:
        raise InvalidChangeError(
            f"NAME: use 1 to {MAXIMUM_NAME_CHARACTERS} printable characters for a programme, "
            "without spaces at its ends."
        )
    with services.transaction() as session:
        # A stop at the same time stops what it is then, or is found.
        _lock(session, name)
        _require_no_stop(session, name)
        expanded = services.scopes.expand(session, scopes)
        names = dict.fromkeys(services.scopes.get_scope(session, each).name for each in expanded)
        ids = dict.fromkeys(
            find_client_id(services, session, each, kind="client") for each in clients
        )
        if not names and not ids:
            raise InvalidChangeError("Name at least one scope or client of the programme.")
        session.merge(Programme(name=name, scopes=list(names), clients=list(ids)))
        store_audit_record(
            session,
            at=services.corrected_clock(),
            actor=actor,
            action="scope.programme_defined",
            subject=name,
            scopes=list(names),
            clients=list(ids),
        )
    return ProgrammeView(name=name, scopes=tuple(names), clients=tuple(ids))


def delete_programme(services: Services, name: str, *, actor: str) -> ProgrammeView:
    """Delete a programme; its scopes and clients stay as they are. Return it as it was.

    Args:
        services: the parts of the server.
        name: its name.
        actor: the recorded actor.

    Raises:
        NotFoundError: there is no such programme.
        ConflictError: it is stopped.
    """
    with services.transaction() as session:
        row = get_programme(session, name, locked=True)
        _require_no_stop(session, name)
        deleted = _describe(row)
        session.delete(row)
        store_audit_record(
            session,
            at=services.corrected_clock(),
            actor=actor,
            action="scope.programme_deleted",
            subject=name,
            scopes=list(deleted.scopes),
            clients=list(deleted.clients),
        )
        record_difference(session, deleted, None, subject=name)
    return deleted


def get_programme(session: Session, name: str, *, locked: bool = False) -> Programme:
    """Return the row of a programme.

    Args:
        session: a database session.
        name: its name.
        locked: whether it stays as it is until the transaction ends.

    Raises:
        NotFoundError: there is no such programme.
    """
    found = _lock(session, name) if locked else session.get(Programme, name)
    if found is None:
        raise no_programme(name)
    return found


def _lock(session: Session, name: str) -> Programme | None:
    """Return a programme as it is now, locked until the transaction ends; None: there is none."""
    return session.get(Programme, name, with_for_update=True, populate_existing=True)


def no_programme(name: str) -> NotFoundError:
    """Return the error of a programme that is not there."""
    return NotFoundError(f"There is no programme {name!r}. `authz-server stop define` defines one.")


def list_programmes(services: Services) -> tuple[ProgrammeView, ...]:
    """Return the programmes by name."""
    with services.database.reading() as session:
        return tuple(map(_describe, session.scalars(select(Programme).order_by(Programme.name))))


def _describe(row: Programme) -> ProgrammeView:
    return ProgrammeView(name=row.name, scopes=tuple(row.scopes), clients=tuple(row.clients))


def _require_no_stop(session: Session, name: str) -> None:
    if session.get(Stop, ("programme", name)) is not None:
        raise ConflictError(f"The programme {name!r} is stopped: lift the stop first.")
