"""The acts of the kill switch that may need a second person."""

from collections.abc import Sequence
from typing import Protocol

from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.records import difference
from authz_server.clients.models import Client
from authz_server.operations.approvals import NotedAct, note_act
from authz_server.operations.client_acts import find_owners
from authz_server.operations.views import revision_of
from authz_server.settings.approvals import LIFT_STOP


class Stopped(Protocol):
    """A stop, as it is set or lifted."""

    @property
    def kind(self) -> str:
        """The kind of its subject."""

    @property
    def subject(self) -> str:
        """The id or name of its subject."""

    @property
    def scopes(self) -> Sequence[str]:
        """The scopes that it concerns."""


def note_stop(  # noqa: PLR0913 - the facts of an act, by name
    services: Services,
    session: Session,
    act: str,
    stop: Stopped,
    *,
    actor: str,
    reason: str,
) -> None:
    """Note that a stop is set or lifted, which may need a second person.

    Args:
        services: the parts of the server.
        session: the transaction.
        act: ``stop.set`` or ``stop.lift``.
        stop: the stop.
        actor: the recorded actor.
        reason: the recorded reason.
    """
    if not services.settings.approvals.acts:
        return
    lifts = act == LIFT_STOP
    arguments = {"kind": stop.kind, "subject": stop.subject, "reason": reason}
    noted = NotedAct(
        acts=(act,),
        actor=actor,
        operation="lift_stop" if lifts else "set_stop",
        arguments=arguments,
        subject=f"stop:{stop.kind}:{stop.subject}",
        organisation=_organisation_of(session, stop),
        resource_servers=_servers_of(session, stop),
        basis=revision_of(stop) if lifts else "",
        diff=difference(stop, None)
        if lifts
        else {"stopped": {"before": None, "after": stop.subject}},
        reason=reason,
    )
    note_act(services, session, noted)


def _organisation_of(session: Session, stop: Stopped) -> str | None:
    if stop.kind not in {"client", "resource-server"}:
        return None
    row = session.get(Client, stop.subject)
    return None if row is None else row.organisation


def _servers_of(session: Session, stop: Stopped) -> tuple[str, ...]:
    if stop.kind == "resource-server":
        return (stop.subject,)
    return find_owners(session, tuple(stop.scopes))
