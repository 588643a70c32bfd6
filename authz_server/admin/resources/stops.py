"""Stops of scopes, clients, resource servers and programmes: list, set and lift them."""

from dataclasses import replace
from typing import Annotated
from urllib.parse import quote

import msgspec
from msgspec import Meta

from authz_server.admin.calls import Call, Reply
from authz_server.admin.resources.clients import Names
from authz_server.errors import NotFoundError
from authz_server.operations.limited_services import reach_of, require_own
from authz_server.operations.programmes import (
    ProgrammeView,
    define_programme,
    delete_programme,
    list_programmes,
)
from authz_server.operations.stops import (
    BlastRadius,
    StopView,
    lift_stop,
    list_stops,
    plan_stop,
    set_stop,
)
from authz_server.tokens.models import Programme
from authz_server.tokens.stops import StopKind

_Reason = Annotated[str, Meta(min_length=1, max_length=500)]
_Name = Annotated[str, Meta(min_length=1, max_length=300)]


class NewStop(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stop to set.

    Attributes:
        kind: what is stopped.
        subject: a scope in any spelling, an id, or the name of a programme.
        reason: the recorded reason.
    """

    kind: StopKind
    subject: _Name
    reason: _Reason


class Lift(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The end of a stop.

    Attributes:
        reason: the recorded reason.
    """

    reason: _Reason


class NewProgramme(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A programme to define or to replace.

    Attributes:
        name: its name.
        scopes: its scopes, in any spelling.
        clients: the ids of its clients.
    """

    name: _Name
    scopes: Names = ()
    clients: Names = ()


def list_all(call: Call) -> Reply:
    """Answer a page of the stops in force, by kind and subject."""
    return call.page(list_stops(call.services), _place, whole=True)


def load(call: Call) -> StopView:
    """Return the stop of the path."""
    wanted = (call.parameters["kind"], call.parameters["subject"])
    for stop in list_stops(call.services):
        if (stop.kind, stop.subject) == wanted:
            return stop
    raise NotFoundError(f"There is no stop of {wanted[0]} {wanted[1]!r}.")


def show(call: Call) -> Reply:
    """Answer a stop in force."""
    return Reply(load(call))


def stop(call: Call) -> Reply:
    """Stop issuing tokens and make the issued ones inactive; answer the extent of the stop."""
    body: NewStop = call.body
    planned = plan_stop(call.services, body.kind, body.subject)
    require_own(call.services, planned.kind, planned.subject)
    set_stop(call.services, planned, reason=body.reason, actor=call.caller.actor)
    planned = _as_seen(call, planned)
    diff = {"stopped": {"before": None, "after": planned.subject}}
    return Reply(planned, subject=planned.subject, diff=diff)


def repeat(call: Call, subject: str) -> Reply:
    """Answer the present extent of the stop that an earlier request with the same key set."""
    planned = plan_stop(call.services, call.body.kind, subject)
    # A client may have got scopes of others meanwhile.
    require_own(call.services, planned.kind, planned.subject)
    return Reply(_as_seen(call, planned))


def lift(call: Call) -> Reply:
    """Lift a stop."""
    found = load(call)
    require_own(call.services, found.kind, found.subject)
    kind: StopKind = msgspec.convert(found.kind, StopKind)
    lift_stop(call.services, kind, found.subject, reason=call.body.reason, actor=call.caller.actor)
    return Reply(None)


def list_all_programmes(call: Call) -> Reply:
    """Answer a page of programmes, by name."""
    return call.page(list_programmes(call.services), lambda each: each.name, whole=True)


def load_programme(call: Call) -> ProgrammeView:
    """Return the programme of the path; in a change, locked."""
    name = call.parameters["programme"]
    found = _find_programme(call, name)
    if found is None:
        raise NotFoundError(f"There is no programme {name!r}.")
    return found


def show_programme(call: Call) -> Reply:
    """Answer a programme."""
    return Reply(load_programme(call))


def load_replaced(call: Call) -> ProgrammeView | None:
    """Return the programme that the body replaces, locked; None: it defines a new one."""
    return _find_programme(call, call.body.name)


def define(call: Call) -> Reply:
    """Define a programme, a named set of scopes and clients, or replace it."""
    body: NewProgramme = call.body
    defined = define_programme(
        call.services,
        body.name,
        scopes=body.scopes,
        clients=body.clients,
        actor=call.caller.actor,
    )
    return Reply(defined, location=quote(defined.name, safe=""))


def remove_programme(call: Call) -> Reply:
    """Delete a programme; its scopes and clients stay as they are."""
    delete_programme(call.services, call.parameters["programme"], actor=call.caller.actor)
    return Reply(None)


def _find_programme(call: Call, name: str) -> ProgrammeView | None:
    if call.session is not None:
        call.session.get(Programme, name, with_for_update=True, populate_existing=True)
    return next((each for each in list_programmes(call.services) if each.name == name), None)


def _as_seen(call: Call, planned: BlastRadius) -> BlastRadius:
    """Return the extent of a stop as the caller sees it: a client may have scopes of others."""
    reach = reach_of(call.services)
    if reach is None:
        return planned
    return replace(planned, resource_servers=reach.shown_servers(planned.resource_servers))


def _place(stop: StopView) -> str:
    return f"{stop.kind} {stop.subject}"
