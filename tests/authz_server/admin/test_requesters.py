"""An approval counts if the requester may still do the act at that time, within the same limits."""

from collections.abc import Callable
from datetime import timedelta
from itertools import count

import pytest

from authz_server.admin.api import Performed
from authz_server.audit.pending_changes import set_requester_groups
from authz_server.operations.client_secrets import add_secret
from authz_server.operations.clients import create_client, delete_client, set_enabled, update_client
from authz_server.operations.operator_roles import AssignedRole
from authz_server.operations.operators import (
    create_operator,
    delete_operator,
    find_grants,
    set_operator_enabled,
    update_operator,
)
from authz_server.operations.permissions import (
    UNLIMITED,
    Caller,
    Grant,
    make_grants,
)
from authz_server.operations.stops import lift_stop, plan_stop, set_stop
from support.admin_site import (
    ALL_SCOPES,
    URL,
    create_caller,
    require_problem,
    running_admin_site,
)
from support.approval_site import MONEY, ApprovalSite
from support.parties import ACTOR

ISSUER = "https://login.example"
MANAGER = AssignedRole(role="client-manager")
_numbers = count()


@pytest.fixture(scope="module")
def approvals(module_database_url: str, prepare, tmp_path_factory):
    """The admin API with a provider, where grants of money and new secrets need an approval."""
    directory = tmp_path_factory.mktemp("requesters")
    prepare(module_database_url, directory)
    (directory / "openid-secret").write_text("x" * 40)
    openid = {
        "issuer": ISSUER,
        "client_id": "authz-server",
        "client_secret": {"file": "openid-secret"},
        "roles": {"desk": ["client-manager"], "guests": ["auditor"]},
    }
    tables = {
        "admin": {
            "enabled": True,
            "public_url": URL,
            "requests_per_minute": 1_000_000,
            "openid": openid,
        },
        "client_id_documents": {
            "allowed_origins": {
                "https://desk.example": ["clients:read", "clients:write"],
                "https://guest.example": ["clients:read"],
            }
        },
        "approvals": {
            "acts": ["scope.grant_money", "client.add_credential", "operator.change_role"]
        },
    }
    with running_admin_site(directory, module_database_url, tables) as site:
        yield ApprovalSite(site)


def _new_requester(approvals: ApprovalSite, **fields) -> str:
    """Return the id of a new client that administers."""
    name = f"requester-{next(_numbers)}"
    approvals.api.secrets[name] = create_caller(approvals.api.services, name, **fields)
    for app in (approvals.api.public, approvals.api.app):
        app.extensions["authz_server"].feed.poll()
    approvals.api.clock.advance(1)
    return name


def _request(approvals: ApprovalSite, requester: str, **fields) -> tuple[str, str]:
    """Ask for a grant of money by a client; return the change and the path of what it changes."""
    token = approvals.api.new_token(client=requester)
    path = f"/clients/{approvals.api.new_client(**fields)['id']}"
    filed = approvals.api.send(
        "PATCH",
        path,
        token=token,
        json={"allowed_scopes": ["mapper/link", MONEY]},
        headers={"If-Match": approvals.api.get(path).headers["ETag"]},
    )
    assert filed.status_code == 202, filed.text
    return filed.json["id"], path


def _require_refused(approvals: ApprovalSite, change: str, path: str, because: str) -> None:
    """Require that an approval is refused, planned and for good, and changes nothing."""
    before = approvals.api.get(path).json
    for query, state in (("?dry_run=true", "pending"), ("", "failed")):
        refused = approvals.decide(change, "approve", query=query)
        detail = require_problem(refused, 409, "conflict")["detail"]
        assert detail.startswith("The requester may not do this any more: request it again.")
        assert because in detail
        assert approvals.state(change) == state
    assert approvals.api.get(path).json == before
    assert because in approvals.api.get(f"/changes/{change}").json["problem"]


def _disable(approvals: ApprovalSite, name: str) -> None:
    set_enabled(approvals.api.services, name, kind="client", enabled=False, actor=ACTOR)


def _delete(approvals: ApprovalSite, name: str) -> None:
    delete_client(approvals.api.services, name, kind="client", actor=ACTOR)


def _make_again(approvals: ApprovalSite, name: str) -> None:
    _delete(approvals, name)
    services = approvals.api.services
    create_client(services, actor=ACTOR, id=name, name=name, allowed_scopes=ALL_SCOPES)


def _stop(approvals: ApprovalSite, name: str) -> None:
    services = approvals.api.services
    set_stop(services, plan_stop(services, "client", name), reason="leaked", actor=ACTOR)


def _end(approvals: ApprovalSite, name: str) -> None:
    services = approvals.api.services
    update_client(services, name, actor=ACTOR, expires_at=services.clock() + timedelta(seconds=1))
    approvals.api.clock.advance(2)


def _take_scope(approvals: ApprovalSite, name: str) -> None:
    update_client(approvals.api.services, name, actor=ACTOR, allowed_scopes=["clients:read"])


def _limit(approvals: ApprovalSite, name: str) -> None:
    properties = {"admin_organisations": ["Elsewhere"]}
    update_client(approvals.api.services, name, actor=ACTOR, properties=properties)


@pytest.mark.parametrize(
    ("lose", "because"),
    [
        (_disable, "is disabled, stopped or past its end"),
        (_delete, "was deleted"),
        (_make_again, "was deleted"),
        (_stop, "is disabled, stopped or past its end"),
        (_end, "is disabled, stopped or past its end"),
        (_take_scope, "The permission clients:write is required"),
        (_limit, "does not lie within the limits"),
    ],
)
def test_a_client_that_lost_the_right_has_nothing_approved(
    approvals, lose: Callable[[ApprovalSite, str], None], because: str
):
    """The secret of a leaked client may have filed the change: its approver would act alone."""
    requester = _new_requester(approvals)
    change, path = _request(approvals, requester, organisation="Treasury")
    approvals.api.clock.advance(1)
    lose(approvals, requester)
    _require_refused(approvals, change, path, because)


def test_a_client_with_the_right_again_has_its_change_approved(approvals):
    """The time of the approval decides."""
    requester = _new_requester(approvals)
    change, path = _request(approvals, requester)
    _disable(approvals, requester)
    set_enabled(approvals.api.services, requester, kind="client", enabled=True, actor=ACTOR)
    _stop(approvals, requester)
    lift_stop(approvals.api.services, "client", requester, reason="over", actor=ACTOR)
    done = approvals.decide(change, "approve")
    assert done.status_code == 200, done.text
    assert MONEY in approvals.api.get(path).json["allowed_scopes"]


@pytest.mark.parametrize(
    ("origin", "because"),
    [("desk", ""), ("guest", "The permission clients:write is required"), ("gone", "was deleted")],
)
def test_a_client_that_publishes_its_metadata_has_the_scopes_of_its_origin(
    approvals, origin: str, because: str
):
    """It has no row; the settings may have changed since the request."""
    grant = Grant(permissions=frozenset({"clients:read", "clients:write"}))
    name = f"https://{origin}.example/client"
    caller = Caller(name=name, kind="client", way="api", grants=(grant,))
    change, path = _request_of(approvals, caller)
    if because:
        _require_refused(approvals, change, path, because)
    else:
        done = approvals.decide(change, "approve")
        assert done.status_code == 200, done.text


def test_within_limits_an_approval_is_carried_out_as_requested(approvals):
    """The limits of the request hold again, and admit what they admitted."""
    requester = _new_requester(approvals, properties={"admin_organisations": ["Treasury"]})
    change, path = _request(approvals, requester, organisation="Treasury")
    done = approvals.decide(change, "approve")
    assert done.status_code == 200, done.text
    assert MONEY in approvals.api.get(path).json["allowed_scopes"]


def test_power_that_the_requester_lost_is_not_given(approvals):
    """A client without keys:read adds no secret to a client that has it."""
    services = approvals.api.services
    requester = _new_requester(approvals)
    other = create_client(services, actor=ACTOR, name="Powerful", allowed_scopes=["keys:read"])
    token = approvals.api.new_token(client=requester)
    path = f"/clients/{other.client.id}"
    filed = approvals.api.send("POST", f"{path}/secrets", token=token, json={})
    assert filed.status_code == 202, filed.text
    fewer = [scope for scope in ALL_SCOPES if scope != "keys:read"]
    update_client(services, requester, actor=ACTOR, allowed_scopes=fewer)
    _require_refused(approvals, filed.json["id"], path, "keys:read")


def test_files_of_a_client_without_the_permission_of_a_section_are_not_applied(approvals):
    """Each section needs its permission at the time of the approval too."""
    requester = _new_requester(approvals)
    name = f"applied-{requester}"
    text = f'[clients.{name}]\nname = "X"\nallowed_scopes = ["{MONEY}"]\n'
    filed = approvals.api.send(
        "POST",
        "/declaration",
        token=approvals.api.new_token(client=requester),
        json={"files": [{"name": "a.toml", "text": text}]},
    )
    assert filed.status_code == 202, filed.text
    _take_scope(approvals, requester)
    _require_refused(approvals, filed.json["id"], "/clients", "clients:write")


def _operator(approvals: ApprovalSite, role: AssignedRole = MANAGER) -> Caller:
    """Return a new local operator, who has just logged in."""
    services, name = approvals.api.services, f"operator-{next(_numbers)}"
    made = create_operator(services, actor=ACTOR, name=name, roles=[role])
    with services.database.reading() as session:
        grants = find_grants(services, session, made.operator.id)
    return _person(approvals, name, made.operator.id, grants)


def _person(approvals, name, operator_id, grants, groups=()) -> Caller:
    return Caller(
        name=name,
        kind="operator",
        way="console",
        grants=grants,
        operator_id=operator_id,
        authenticated_at=approvals.api.clock(),
        groups=groups,
    )


def _request_of(approvals: ApprovalSite, caller: Caller, **fields) -> tuple[str, str]:
    path = f"/clients/{approvals.api.new_client(**fields)['id']}"
    body = {"allowed_scopes": ["mapper/link", MONEY]}
    filed: Performed = approvals.api.app.api.perform(caller, "PATCH", path, body=body, if_match="*")
    assert filed.status == 202, filed.body
    return filed.body["id"], path


def test_an_operator_who_was_disabled_demoted_or_deleted_has_nothing_approved(approvals):
    """Otherwise who is dismissed leaves up to 200 changes that one person carries out."""
    services = approvals.api.services
    auditor = [AssignedRole(role="auditor")]
    limited = [AssignedRole(role="client-manager", organisations=("Elsewhere",))]
    no_role = "disabled or deleted, or has no role"
    for lose, because in (
        (lambda id_: set_operator_enabled(services, id_, enabled=False, actor=ACTOR), no_role),
        (lambda id_: delete_operator(services, id_, actor=ACTOR), no_role),
        (lambda id_: update_operator(services, id_, actor=ACTOR, roles=[]), no_role),
        (
            lambda id_: update_operator(services, id_, actor=ACTOR, roles=auditor),
            "clients:write",
        ),
        (
            lambda id_: update_operator(services, id_, actor=ACTOR, roles=limited),
            "does not lie within the limits",
        ),
    ):
        caller = _operator(approvals)
        change, path = _request_of(approvals, caller)
        lose(caller.operator_id)
        _require_refused(approvals, change, path, because)
    change, path = _request_of(approvals, _operator(approvals))
    assert approvals.decide(change, "approve").status_code == 200


def _provided(approvals: ApprovalSite, subject: str, group: str = "desk") -> Caller:
    """Return a person of the provider in a group."""
    grants = make_grants(approvals.api.settings, [("client-manager", UNLIMITED)])
    return _person(approvals, f"{subject} ({subject})", f"openid:{subject}", grants, (group,))


def _log_in(approvals: ApprovalSite, subject: str, *groups: str) -> None:
    """Do what a log-in at the provider does to changes that wait."""
    with approvals.api.services.transaction() as session:
        set_requester_groups(session, f"operator:openid:{subject}", groups)


@pytest.mark.parametrize(
    ("requested_in", "logged_in_again", "because"),
    [
        ("desk", "", ""),
        ("desk", "desk", ""),
        ("closed", "", "has no role"),
        ("desk", "guests", "clients:write"),
        ("desk", "closed", "has no role"),
    ],
)
def test_the_groups_of_the_latest_log_in_count_for_a_person_of_the_provider(
    approvals, requested_in: str, logged_in_again: str, because: str
):
    """Until then they are the groups of the request, with the roles of the settings now."""
    subject = f"person-{next(_numbers)}"
    change, path = _request_of(approvals, _provided(approvals, subject, requested_in))
    if logged_in_again:
        _log_in(approvals, subject, logged_in_again)
    if because:
        _require_refused(approvals, change, path, because)
    else:
        done = approvals.decide(change, "approve")
        assert done.status_code == 200, done.text


def test_a_limited_requester_is_told_of_what_is_gone(approvals):
    """The client was deleted: the limits of the requester are what they were."""
    services = approvals.api.services
    requester = _new_requester(approvals, properties={"admin_organisations": ["Treasury"]})
    change, path = _request(approvals, requester, organisation="Treasury")
    client = path.removeprefix("/clients/")
    delete_client(services, client, kind="client", actor=ACTOR)
    refused = approvals.decide(change, "approve")
    detail = require_problem(refused, 409, "conflict")["detail"]
    assert repr(client) in detail
    assert detail.endswith("It is gone, or does not lie within the limits of the requester.")
    assert approvals.api.get(f"/changes/{change}").json["problem"] == detail


def test_a_secret_that_waits_is_not_added_for_who_lost_the_right(approvals):
    """Nothing of the request is left: its secret neither works nor is stored."""
    services = approvals.api.services
    requester = _new_requester(approvals)
    path = f"/clients/{approvals.api.new_client()['id']}"
    add_secret(services, path.removeprefix("/clients/"), kind="client", actor=ACTOR)
    filed = approvals.api.send(
        "POST", f"{path}/secrets", token=approvals.api.new_token(client=requester), json={}
    )
    assert filed.status_code == 202, filed.text
    secrets = approvals.api.get(f"{path}/secrets").json["items"]
    _disable(approvals, requester)
    _require_refused(approvals, filed.json["id"], path, "is disabled")
    assert approvals.api.get(f"{path}/secrets").json["items"] == secrets
