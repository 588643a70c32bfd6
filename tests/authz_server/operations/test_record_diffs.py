"""Records of every way in have the diff: the operations record it, and not those that call them."""

from datetime import timedelta

from sqlalchemy import select

from authz_server.audit.models import AuditRecord
from authz_server.operations import client_secrets, clients, event_streams, operators, scopes
from authz_server.operations import registration_tokens as tokens
from authz_server.operations import resource_servers as servers
from authz_server.operations.operator_roles import AssignedRole
from authz_server.operations.revocation import revoke_tokens
from authz_server.operations.secret_rotation import rotate_secret
from authz_server.operations.stops import lift_stop, plan_stop, set_stop


def _diffs(operator) -> list[tuple[str, object]]:
    """Return the event and the diff of each record of the operator."""
    with operator.services.transaction() as session:
        rows = session.scalars(select(AuditRecord).order_by(AuditRecord.id)).all()
        return [(row.action, row.detail.get("diff")) for row in rows if row.actor == operator.actor]


def test_every_record_of_an_operation_has_its_diff(operator):
    """Without a caller that adds it, as a command does."""
    services, by = operator.services, {"actor": operator.actor}
    kind = {"kind": "client"}
    servers.create_resource_server(
        services, id="api", name="API", identifier="https://api.example", **by
    )
    servers.update_resource_server(services, "api", name="The API", **by)
    scopes.add_scope(services, name="own/read", **by)
    scopes.assign_scopes(services, ["own/read"], "api", take_over=False, **by)
    clients.create_client(services, id="abc", name="A", allowed_scopes=["own/read"], **by)
    clients.update_client(services, "abc", name="B", **by)
    added = client_secrets.add_secret(services, "abc", **kind, **by)
    unused = timedelta(days=1)
    rotate_secret(services, "abc", end_old_when_unused=unused, **kind, **by)
    client_secrets.end_secret(services, "abc", added.id, **kind, **by)
    set_stop(services, plan_stop(services, "client", "abc"), reason="leak", **by)
    lift_stop(services, "client", "abc", reason="over", **by)
    revoke_tokens(services, "client", "abc", **by)
    clients.set_enabled(services, "abc", enabled=False, **kind, **by)
    clients.delete_client(services, "abc", **kind, **by)
    event_streams.set_stream(services, "api", delivery="poll", **by)
    event_streams.set_stream(services, "api", delivery="poll", events=["stopped"], **by)
    event_streams.delete_stream(services, "api", **by)
    until = services.clock() + timedelta(days=1)
    made = tokens.create_registration_token(services, expires_at=until, **by)
    tokens.end_registration_token(services, made.view.id, **by)
    for name in ("ada", "grace"):
        officer = AssignedRole(role="security-officer")
        operators.create_operator(services, name=name, roles=[officer], **by)
    operators.update_operator(services, "ada", roles=[AssignedRole(role="auditor")], **by)
    operators.renew_enrolment(services, "ada", **by)
    operators.set_operator_enabled(services, "ada", enabled=False, **by)
    operators.delete_operator(services, "ada", **by)
    found = _diffs(operator)
    assert [action for action, diff in found if not diff] == []
    diffs = dict(reversed(found))
    assert diffs["client.updated"] == {"name": {"before": "A", "after": "B"}}
    assert diffs["client.disabled"] == {"state": {"before": "enabled", "after": "disabled"}}
    assert diffs["client.deleted"]["name"] == {"before": "B", "after": None}
    assert diffs["scope.assigned"] == {"resource_server": {"before": None, "after": "api"}}
    assert diffs["event_stream.set"]["delivery"] == {"before": None, "after": "poll"}
