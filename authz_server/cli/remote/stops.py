"""The requests for stops and programmes."""

from collections.abc import Iterable

from authz_server.cli.remote.api import AdminApi, convert
from authz_server.cli.remote.table import carries_out
from authz_server.errors import NotFoundError
from authz_server.operations.programmes import (
    ProgrammeView,
    define_programme,
    delete_programme,
    list_programmes,
    no_programme,
)
from authz_server.operations.scopes import ScopeView
from authz_server.operations.stops import (
    BlastRadius,
    StopView,
    lift_stop,
    list_stops,
    not_stopped,
    plan_stop,
    set_stop,
)
from authz_server.tokens.stops import StopKind

_READ, _WRITE = "scopes:read", "tokens:revoke"


@carries_out(plan_stop)
def _plan_stop(api: AdminApi, kind: StopKind, subject: str) -> BlastRadius:
    # A plan has no reason; the API requires one.
    body = {"kind": kind, "subject": subject, "reason": "plan"}
    planned = api.post(_WRITE, "stops", body=body, dry_run=True)
    # A server of the release before names all clients, without their number.
    number = len(planned.get("clients", ()))
    return convert({"client_count": number, **planned}, BlastRadius)


@carries_out(set_stop)
def _set_stop(api: AdminApi, planned: BlastRadius, *, reason: str, actor: str) -> None:
    del actor
    body = {"kind": planned.kind, "subject": planned.subject, "reason": reason}
    api.create(_WRITE, "stops", body=body)


@carries_out(list_stops)
def _list_stops(api: AdminApi) -> tuple[StopView, ...]:
    found = api.list(StopView, _READ, "stops")
    return tuple(sorted(found, key=lambda stop: stop.created_at))


@carries_out(lift_stop)
def _lift_stop(api: AdminApi, kind: StopKind, subject: str, *, reason: str, actor: str) -> StopView:
    del actor
    if kind == "scope":
        subject = api.read(ScopeView, _READ, "scopes", subject).name
    item = ("stops", kind, subject)
    try:
        lifted = api.read(StopView, _READ, *item)
    except NotFoundError:
        raise not_stopped(kind, subject) from None
    api.change("POST", _WRITE, *item, "lift", item=item, body={"reason": reason})
    return lifted


@carries_out(define_programme)
def _define_programme(
    api: AdminApi, name: str, *, scopes: Iterable[str], clients: Iterable[str], actor: str
) -> ProgrammeView:
    del actor
    body = {"name": name, "scopes": tuple(scopes), "clients": tuple(clients)}
    return convert(api.post("scopes:write", "programmes", body=body), ProgrammeView)


@carries_out(delete_programme)
def _delete_programme(api: AdminApi, name: str, *, actor: str) -> ProgrammeView:
    del actor
    item = ("programmes", name)
    try:
        deleted = api.read(ProgrammeView, _READ, *item)
    except NotFoundError:
        raise no_programme(name) from None
    api.change("DELETE", "scopes:write", *item, item=item)
    return deleted


@carries_out(list_programmes)
def _list_programmes(api: AdminApi) -> tuple[ProgrammeView, ...]:
    return api.list(ProgrammeView, _READ, "programmes")
