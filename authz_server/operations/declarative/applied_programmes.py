"""The programmes of declarative files: add, change and remove them."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.records import record_diff
from authz_server.operations.declarative.application import Application
from authz_server.operations.declarative.applied_scopes import read_names
from authz_server.operations.declarative.document import DeclaredProgramme
from authz_server.operations.declarative.plan import Act, PlannedChange, compare, plain_diff
from authz_server.operations.declarative.stored import normal, without_defaults
from authz_server.operations.programmes import define_programme, delete_programme
from authz_server.tokens.models import Programme


class ProgrammeStep:
    """Brings the programmes up to date.

    Args:
        services: the parts of the server, joined to the transaction.
        session: the transaction.
        application: what is applied.
    """

    def __init__(self, services: Services, session: Session, application: Application) -> None:
        self._services = services
        self._session = session
        self._application = application
        self._declared = application.declaration.programmes

    def bring_up_to_date(self) -> list[PlannedChange]:
        """Add and change programmes; return the changes."""
        if not self._declared:
            return []
        names = read_names(self._services, self._session)
        stored = read_programmes(self._session)
        changes = []
        for name, entry in sorted(self._declared.items()):
            with self._application.declaration.at("programmes", name):
                wanted = {
                    "scopes": names.resolve("scopes", entry.scopes),
                    "clients": normal(entry.clients),
                }
                change = self._bring(name, wanted, stored.get(name))
            if change is not None:
                changes.append(change)
        return changes

    def _bring(
        self, name: str, wanted: dict[str, Any], before: dict[str, Any] | None
    ) -> PlannedChange | None:
        fields = compare(before or {}, wanted)
        if before is not None and not fields:
            return None
        define_programme(self._services, name, actor=self._application.actor, **wanted)
        if before is None:
            fields = compare({}, without_defaults(DeclaredProgramme, wanted))
        record_diff(self._session, plain_diff(fields), subject=name)
        self._application.concerned.add_whole_server()
        act: Act = "add" if before is None else "change"
        return PlannedChange(act=act, noun="programme", id=name, fields=fields)

    def remove_others(self) -> list[PlannedChange]:
        """Delete the programmes that the files do not have; return the changes.

        Raises:
            ConflictError: one of them is stopped.
        """
        if "programmes" not in self._application.declaration.sections:
            return []
        others = [name for name in read_programmes(self._session) if name not in self._declared]
        for name in others:
            delete_programme(self._services, name, actor=self._application.actor)
            self._application.concerned.add_whole_server()
        return [PlannedChange(act="remove", noun="programme", id=name) for name in others]


def read_programmes(session: Session) -> dict[str, dict[str, Any]]:
    """Return the declared fields of the stored programmes, by name."""
    return {
        row.name: {"scopes": normal(row.scopes), "clients": normal(row.clients)}
        for row in session.scalars(select(Programme).order_by(Programme.name))
    }
