"""The routes of the admin API: for each, its permission and what answers it.

Routing, the check of the permission, the OpenAPI document and the tests are generated from the
table, so that a route has a rule or does not exist.
"""

from dataclasses import replace

from authz_server.admin.calls import NoBody
from authz_server.admin.resources import (
    activity,
    changes,
    clients,
    declarations,
    event_streams,
    explanations,
    operators,
    records,
    registration_tokens,
    resource_servers,
    revocations,
    rings,
    scopes,
    stops,
)
from authz_server.admin.resources.secrets import (
    DueQuery,
    EndQuery,
    NewSecretBody,
    Rotation,
    SecretAnswer,
    SecretResources,
)
from authz_server.admin.route_kinds import Done as _Done
from authz_server.admin.route_kinds import Route
from authz_server.admin.route_kinds import change_route as _change
from authz_server.admin.route_kinds import create_route as _create
from authz_server.admin.route_kinds import explain_route as _explain
from authz_server.admin.route_kinds import limited_to as _limited
from authz_server.admin.route_kinds import list_route as _list
from authz_server.admin.route_kinds import long as _long
from authz_server.admin.route_kinds import read_route as _read
from authz_server.admin.route_kinds import show_route as _show
from authz_server.operations.activity import Activity
from authz_server.operations.audit.search import TrailRecord
from authz_server.operations.audit.verify import AuditVerification
from authz_server.operations.audit.who import WhoAnswer
from authz_server.operations.changes import ChangeView
from authz_server.operations.client_search import FoundClient
from authz_server.operations.client_views import ClientView, SecretView
from authz_server.operations.declarative.plan import Plan
from authz_server.operations.due_secrets import DueSecret
from authz_server.operations.event_streams import StreamView, UndeliveredView
from authz_server.operations.explain import RequestExplanation
from authz_server.operations.explain_token import TokenExplanation
from authz_server.operations.keys.list import KeyView, RingView
from authz_server.operations.keys.status import RingsReport, RingStatus
from authz_server.operations.least_privilege import LeastPrivilege
from authz_server.operations.operator_sessions import LoggedOut
from authz_server.operations.operators import OperatorView
from authz_server.operations.passkeys import PasskeyView
from authz_server.operations.programmes import ProgrammeView
from authz_server.operations.registration_tokens import RegistrationTokenView
from authz_server.operations.reports import Owners
from authz_server.operations.resource_servers import ResourceServerView
from authz_server.operations.scopes import ScopeView
from authz_server.operations.stops import BlastRadius, StopView
from authz_server.operations.stored_records import RecordView

__all__ = ["PREFIX", "ROUTES", "Route"]

PREFIX = "/admin/v1"


def _secrets(path: str, of: SecretResources, permission: str, *instead: str) -> tuple[Route, ...]:
    one = f"{path}/{{secret_id}}"
    write = "secrets:write"
    routes = (
        _list(path, permission, of.list, SecretView),
        _create(path, write, of.add, SecretView, NewSecretBody, of.repeat, members=SecretAnswer),
        _create(
            f"{path}/rotate",
            write,
            of.rotate,
            SecretView,
            Rotation,
            of.repeat,
            members=SecretAnswer,
        ),
        _read(one, permission, of.show, SecretView),
        _change(one, write, of.end, of.load, SecretView, None, method="DELETE", query=EndQuery),
    )
    return tuple(replace(each, instead=instead) if each.changes else each for each in routes)


_CLIENT = "/clients/{client_id}"
_SERVER = "/resource-servers/{client_id}"
_SCOPE = "/scopes/{scope}"
_RING = "/rings/{ring}"
_PROGRAMME = "/programmes/{programme}"
_STOP = "/stops/{kind}/{subject}"
_OPERATOR = "/operators/{operator}"
_PASSKEY = f"{_OPERATOR}/passkeys/{{passkey}}"
_KEY = "/rings/{ring}/keys/{kid}"
_CHANGE = "/changes/{change_id}"
_STREAM = "/event-streams/{resource_server}"
_TOKEN = "/registration-tokens/{token_id}"  # noqa: S105 - a path, not a secret
_C, _RS, _S, _K, _O = clients, resource_servers, scopes, rings, operators
_D, _ES, _RT = declarations, event_streams, registration_tokens
_C_READ, _C_WRITE = "clients:read", "clients:write"
_RS_READ, _RS_WRITE = "resource-servers:read", "resource-servers:write"
_S_READ, _S_WRITE = "scopes:read", "scopes:write"
_O_READ, _O_WRITE = "operators:read", "operators:write"
_K_READ, _K_ROTATE, _K_REVOKE = "keys:read", "keys:rotate", "keys:revoke"

# fmt: off
ROUTES: tuple[Route, ...] = (
    Route(method="GET", path="/openapi.json", permission="", act=None, limited="open"),
    *_limited("part",
        _list("/clients", _C_READ, _C.list_clients, FoundClient, _C.ClientQuery,
              members=_C.ClientListMembers),
        _create("/clients", _C_WRITE, _C.register_client, ClientView, _C.NewClient,
                _C.repeat_registration, members=_C.Registered),
        _read(_CLIENT, _C_READ, _C.show_client, ClientView),
        _change(_CLIENT, _C_WRITE, _C.change_client, _C.load_client, ClientView, _C.ClientChanges,
                method="PATCH"),
        _change(_CLIENT, _C_WRITE, _C.remove_client, _C.load_client, _Done, None,
                method="DELETE"),
        _change(f"{_CLIENT}/enable", _C_WRITE, _C.enable_client, _C.load_client, ClientView,
                _C.Switch),
        _change(f"{_CLIENT}/disable", _C_WRITE, _C.disable_client, _C.load_client, ClientView,
                _C.Switch),
        *_secrets(f"{_CLIENT}/secrets", SecretResources("client"), _C_READ),
        _list("/resource-servers", _RS_READ, _RS.list_servers, ResourceServerView,
              _RS.ResourceServerQuery),
        _read(_SERVER, _RS_READ, _RS.show_server, ResourceServerView),
        _change(_SERVER, _RS_WRITE, _RS.change_server, _RS.load_server, ResourceServerView,
                _RS.ResourceServerChanges, method="PATCH"),
        _change(f"{_SERVER}/enable", _RS_WRITE, _RS.enable_server, _RS.load_server,
                ResourceServerView, _C.Switch),
        _change(f"{_SERVER}/disable", _RS_WRITE, _RS.disable_server, _RS.load_server,
                ResourceServerView, _C.Switch),
        # Who changes a resource server may give it keys, too.
        *_secrets(f"{_SERVER}/secrets", SecretResources("resource_server"), _RS_READ, _RS_WRITE),
        _list("/scopes", _S_READ, _S.list_all, ScopeView, _S.ScopeQuery),
        _create("/scopes", _S_WRITE, _S.add, ScopeView, _S.NewScope, _S.repeat),
        _create("/scopes/assignments", _S_WRITE, _S.assign_several, _S.Assigned, _S.Assignment,
                status=200),
        _read(_SCOPE, _S_READ, _S.show, ScopeView),
        _change(_SCOPE, _S_WRITE, _S.change, _S.load, ScopeView, _S.ScopeChanges, method="PATCH"),
        _change(_SCOPE, _S_WRITE, _S.remove, _S.load, _Done, None, method="DELETE"),
        _change(f"{_SCOPE}/assign", _S_WRITE, _S.assign, _S.load, ScopeView, _S.Owner),
        _list("/event-streams", _RS_READ, _ES.list_all, StreamView),
        _create("/event-streams", _RS_WRITE, _ES.create, StreamView, _ES.NewStream, _ES.repeat),
        _read(_STREAM, _RS_READ, _ES.show, StreamView),
        _change(_STREAM, _RS_WRITE, _ES.change, _ES.load, StreamView, _ES.StreamChanges,
                method="PATCH"),
        _change(_STREAM, _RS_WRITE, _ES.remove, _ES.load, _Done, None, method="DELETE"),
        _change(f"{_STREAM}/retry", _RS_WRITE, _ES.retry, _ES.load, StreamView),
        _list(f"{_STREAM}/undelivered", _RS_READ, _ES.list_all_undelivered, UndeliveredView),
        _list("/registration-tokens", _C_READ, _RT.list_all, RegistrationTokenView),
        _create("/registration-tokens", _C_WRITE, _RT.create, RegistrationTokenView, _RT.NewToken,
                _RT.repeat, members=_RT.TokenAnswer),
        _read(_TOKEN, _C_READ, _RT.show, RegistrationTokenView),
        _change(_TOKEN, _C_WRITE, _RT.end, _RT.load, RegistrationTokenView, None,
                method="DELETE"),
        _create("/revocations", "tokens:revoke", revocations.revoke, revocations.Revoked,
                revocations.RevocationBody, revocations.repeat),
        _list("/stops", _S_READ, stops.list_all, StopView),
        _create("/stops", "tokens:revoke", stops.stop, BlastRadius, stops.NewStop, stops.repeat),
        _read(_STOP, _S_READ, stops.show, StopView),
        _change(f"{_STOP}/lift", "tokens:revoke", stops.lift, stops.load, _Done, stops.Lift),
        _explain("/explanations/requests", explanations.of_request, RequestExplanation,
                 explanations.RequestQuestion),
        _explain("/explanations/tokens", explanations.of_token, TokenExplanation,
                 explanations.TokenQuestion),
        _list("/audit", "audit:read", records.list_audit, RecordView, records.AuditQuery),
        Route(method="GET", path="/reports/least-privilege", permission=_C_READ,
              act=records.show_least_privilege, query=records.LeastPrivilegeQuery,
              answer=LeastPrivilege),
        _list("/reports/client-secrets", _C_READ, SecretResources("client").list_due, DueSecret,
              DueQuery),
        _list("/reports/resource-server-secrets", _RS_READ,
              SecretResources("resource_server").list_due, DueSecret, DueQuery),
        Route(method="GET", path="/reports/owners", permission=_C_READ, act=records.show_owners,
              query=records.OwnersQuery, answer=Owners),
        _list("/changes", "changes:read", changes.list_all, ChangeView, changes.ChangesQuery),
        _read(_CHANGE, "changes:read", changes.show, ChangeView),
        *(
            _change(f"{_CHANGE}/{act.__name__}", "changes:approve", act, changes.load, ChangeView,
                    changes.DecisionBody, kind="order")
            for act in (changes.approve, changes.reject, changes.confirm)
        ),
    ),
    *_limited("items",
        Route(method="GET", path="/declaration", permission=_C_READ, further=(_RS_READ, _S_READ),
              act=_D.export, query=_D.ExportQuery, answer=_D.Export, is_alone=True),
        replace(_create("/declaration", _C_WRITE, _D.apply, Plan, _D.Declared, _D.repeat,
                        members=_D.AppliedMembers, status=200),
                maximum_body_bytes=_D.MAXIMUM_BODY_BYTES, is_alone=True, prepare=_D.prepare,
                one_of=(_C_WRITE, _RS_WRITE, _S_WRITE, _O_WRITE)),
    ),
    # Every caller decides on its own.
    *_limited("open",
        _change(f"{_CHANGE}/withdraw", "", changes.withdraw, changes.load_own, ChangeView,
                changes.DecisionBody, kind="order"),
        _change(f"{_CHANGE}/break-glass", "", changes.break_glass, changes.load_own, ChangeView,
                changes.DecisionBody, kind="order"),
    ),
    *_limited("refused",
        _list("/operators", _O_READ, _O.list_all, OperatorView),
        _create("/operators", _O_WRITE, _O.create, OperatorView, _O.NewOperatorBody, _O.repeat,
                members=_O.CreatedOperator),
        _read(_OPERATOR, _O_READ, _O.show, OperatorView),
        _change(_OPERATOR, _O_WRITE, _O.change, _O.load, OperatorView, _O.OperatorChanges,
                method="PATCH"),
        _change(_OPERATOR, _O_WRITE, _O.remove, _O.load, _Done, None, method="DELETE"),
        _change(f"{_OPERATOR}/enable", _O_WRITE, _O.enable, _O.load, OperatorView),
        _change(f"{_OPERATOR}/disable", _O_WRITE, _O.disable, _O.load, OperatorView),
        _list("/roles", _O_READ, _O.list_roles, _O.RoleDescription),
        _list(f"{_OPERATOR}/passkeys", _O_READ, _O.list_all_passkeys, PasskeyView),
        _read(_PASSKEY, _O_READ, _O.show_passkey, PasskeyView),
        _change(_PASSKEY, _O_WRITE, _O.remove_one_passkey, _O.load_passkey, _Done, None,
                method="DELETE"),
        _create(f"{_OPERATOR}/enrolments", _O_WRITE, _O.enrol, _O.EnrolmentView, NoBody,
                _O.repeat_enrolment, members=_O.EnrolmentMembers),
        _create(f"{_OPERATOR}/log-out", _O_WRITE, _O.log_out, LoggedOut, NoBody, status=200),
        _create("/resource-servers", _RS_WRITE, _RS.register_server, ResourceServerView,
                _RS.NewResourceServer, _RS.repeat_server, members=_C.Registered),
        _change(_SERVER, _RS_WRITE, _RS.remove_server, _RS.load_server, _Done, None,
                method="DELETE"),
        _create("/scopes/imports", _S_WRITE, _S.import_catalogue, _S.Imported, _S.CatalogueName,
                status=200),
        _list("/rings", _K_READ, _K.list_rings, RingView),
        _read(_RING, _K_READ, _K.show_ring, RingView),
        _show(f"{_RING}/status", _K_READ, _K.show_status, RingStatus),
        Route(method="GET", path=f"{_RING}/calendar", permission=_K_READ, act=_K.show_calendar,
              query=_K.CalendarQuery, answer=_K.RingCalendar),
        _change(f"{_RING}/rotate", _K_ROTATE, _K.rotate, _K.load_ring, _K.OrderAnswer, _K.OrderBody,
                kind="order"),
        _change(f"{_RING}/freeze", _K_ROTATE, _K.freeze, _K.load_ring, _K.OrderAnswer, _K.OrderBody,
                kind="order"),
        _change(f"{_RING}/unfreeze", _K_ROTATE, _K.unfreeze, _K.load_ring, _K.OrderAnswer,
                _K.OrderBody, kind="order"),
        _change(f"{_RING}/move", _K_ROTATE, _K.move, _K.load_ring, _K.OrderAnswer, _K.Succession,
                kind="order"),
        _change(f"{_RING}/prune", _K_ROTATE, _K.prune, _K.load_ring, _K.OrderAnswer, kind="order"),
        _change(f"{_RING}/tick", _K_ROTATE, _K.tick, _K.load_ring, _K.OrderAnswer, kind="order"),
        _change(f"{_RING}/destroy", _K_REVOKE, _K.destroy, _K.load_ring, _K.OrderAnswer,
                _K.OrderBody, kind="order"),
        _list(f"{_RING}/keys", _K_READ, _K.list_ring_keys, KeyView),
        Route(method="GET", path="/reports/keys", permission=_K_READ, act=_K.report_all,
              query=_K.ReportQuery, answer=RingsReport),
        _read(_KEY, _K_READ, _K.show_key, KeyView),
        _change(f"{_KEY}/activate", _K_ROTATE, _K.activate, _K.load_key, _K.OrderAnswer,
                _K.Activation, kind="order"),
        _change(f"{_KEY}/taint", _K_ROTATE, _K.taint, _K.load_key, _K.OrderAnswer, _K.OrderBody,
                kind="order"),
        _change(f"{_KEY}/revoke", _K_REVOKE, _K.revoke, _K.load_key, _K.OrderAnswer, _K.Revocation,
                kind="order"),
        _list("/programmes", _S_READ, stops.list_all_programmes, ProgrammeView),
        _create("/programmes", _S_WRITE, stops.define, ProgrammeView, stops.NewProgramme,
                status=200, item=stops.load_replaced),
        _read(_PROGRAMME, _S_READ, stops.show_programme, ProgrammeView),
        _change(_PROGRAMME, _S_WRITE, stops.remove_programme, stops.load_programme, _Done, None,
                method="DELETE"),
        *_long(
            _list("/audit/search", "audit:read", records.search_audit, TrailRecord,
                  records.AuditQuery, members=records.TrailMembers),
            _show("/audit/verify", "audit:read", records.verify_trail, AuditVerification),
            Route(method="GET", path="/audit/who", permission="audit:read", act=records.show_who,
                  query=records.WhoQuery, answer=WhoAnswer),
        ),
        Route(method="GET", path="/activity", permission="audit:read", act=activity.show,
              query=activity.ActivityQuery, answer=Activity),
        _list("/settings", "settings:read", records.list_settings, records.Setting,
              records.SettingsQuery),
    ),
)
# fmt: on
