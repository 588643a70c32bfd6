from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from authz_server.audit.models import AuditRecord
from authz_server.clients.models import Client, ClientSecret
from authz_server.database.change_feed import Change
from authz_server.errors import ConflictError, InvalidChangeError, NotFoundError
from support.registry import ACTOR


def _records(registry):
    with registry.session() as session:
        query = select(AuditRecord).where(AuditRecord.action.like("client.%"))
        return session.scalars(query.order_by(AuditRecord.id)).all()


def _changed_clients(registry):
    with registry.session() as session:
        query = select(Change.subject).where(Change.kind == "client").order_by(Change.revision)
        return session.scalars(query).all()


def _refuse_update(registry, **value):
    """Require that the change of a member of the client `ministry` is refused by its name."""
    (name,) = value
    with pytest.raises(InvalidChangeError, match=f"^{name}"), registry.session() as session:
        registry.clients.update_client(session, "ministry", actor=ACTOR, **value)


def test_a_client_is_kept_with_canonical_scopes_a_record_and_a_change(registry):
    """Case K124."""
    registry.create_client(
        allowed_scopes=["mapper.link", "mapper/status", "mapper/link"],
        default_scopes=["mapper.link"],
        token_lifetime_seconds=60,
    )
    with registry.session() as session:
        client = registry.clients.get_client(session, "ministry")
    assert client.allowed_scopes == ["mapper/link", "mapper/txn/status"]
    assert client.default_scopes == ["mapper/link"]
    assert (client.enabled, client.token_lifetime_seconds) == (True, 60)
    assert client.authentication_method == "client_secret"
    (record,) = _records(registry)
    assert (record.actor, record.action, record.subject) == (ACTOR, "client.created", "ministry")
    assert record.detail["allowed_scopes"] == ["mapper/link", "mapper/txn/status"]
    assert _changed_clients(registry) == ["ministry"]


def test_an_id_is_made_up_when_none_is_given(registry):
    first, second = (registry.create_client(id=None) for _ in range(2))
    assert first.id != second.id
    assert len(first.id) >= 16


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"id": "ab"}, "id"),
        ({"id": "a" * 129}, "id"),
        ({"id": "with space"}, "id"),
        ({"id": "näme"}, "id"),
        ({"id": "line\n"}, "id"),
        ({"name": ""}, "name"),
        ({"name": "   "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": "\x1b[31mred"}, "name"),
        ({"name": "line\u2028separator"}, "name"),
        ({"organisation": "nul\0"}, "organisation"),
        ({"authentication_method": "none"}, "authentication_method"),
        ({"authentication_method": ["client_secret_basic"]}, "authentication_method"),
        ({"grant_types": ["password"]}, "grant_types"),
        ({"grant_types": ["client_credentials", "implicit"]}, "grant_types"),
        ({"allowed_scopes": ["mapper/nothing"]}, "allowed_scopes.*mapper/nothing"),
        ({"allowed_scopes": ["*"]}, "allowed_scopes"),
        ({"default_scopes": ["mapper/unlink"]}, "default_scopes"),
        ({"default_scopes": ["mapper/nothing"]}, "default_scopes"),
        ({"allowed_resource_servers": ["nobody"]}, "allowed_resource_servers"),
        ({"permissions": ["introspect:all"]}, "permissions"),
        ({"starts_at": datetime(2030, 1, 1)}, "starts_at"),  # noqa: DTZ001 - the point
        ({"expires_at": "2030-01-01"}, "expires_at"),
        (
            {
                "starts_at": datetime(2031, 1, 1, tzinfo=UTC),
                "expires_at": datetime(2030, 1, 1, tzinfo=UTC),
            },
            "expires_at",
        ),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused_by_name_and_leaves_nothing(
    shared_registry, values, named
):
    """Case L129."""
    with pytest.raises(InvalidChangeError, match=f"^{named}"):
        shared_registry.create_client(**values)
    with shared_registry.session() as session:
        assert shared_registry.clients.list_clients(session) == []
    assert _records(shared_registry) == []


LIFETIMES = [0, -1, 3_601, 2**63, 1.5, float("nan"), "3600abc", True]


@pytest.mark.parametrize("lifetime", LIFETIMES)
def test_a_lifetime_outside_the_limits_is_refused_when_set(shared_registry, lifetime):
    """Case B27."""
    with pytest.raises(InvalidChangeError, match=r"^token_lifetime_seconds"):
        shared_registry.create_client(token_lifetime_seconds=lifetime)


def test_a_lifetime_outside_the_limits_is_refused_when_changed(registry):
    """Case B27."""
    registry.create_client()
    for lifetime in LIFETIMES:
        _refuse_update(registry, token_lifetime_seconds=lifetime)


def test_a_taken_id_is_refused(registry):
    registry.create_client()
    with pytest.raises(ConflictError, match="'ministry' is taken"):
        registry.create_client()


def test_an_update_changes_the_named_fields_only(registry):
    registry.create_client(organisation="Treasury")
    registry.clock.advance(60)
    with registry.session() as session:
        registry.clients.update_client(
            session,
            "ministry",
            actor=ACTOR,
            name="Ministry of Finance",
            allowed_scopes=["disburse"],
        )
    with registry.session() as session:
        client = registry.clients.get_client(session, "ministry")
    assert (client.name, client.organisation) == ("Ministry of Finance", "Treasury")
    assert client.allowed_scopes == ["disburse/disburse"]
    assert client.updated_at == registry.clock()
    assert client.created_at < client.updated_at
    assert [record.action for record in _records(registry)] == ["client.created", "client.updated"]
    assert _changed_clients(registry) == ["ministry", "ministry"]


def test_an_update_of_other_members_is_refused(registry):
    """Case H89."""
    registry.create_client()
    for field in ("id", "kind", "enabled", "created_at", "secrets", "anything"):
        _refuse_update(registry, **{field: "x"})


def test_withdrawing_a_scope_that_is_a_default_is_refused(registry):
    registry.create_client(
        allowed_scopes=["mapper/link", "mapper/unlink"], default_scopes=["mapper/link"]
    )
    with pytest.raises(InvalidChangeError, match=r"^default_scopes"), registry.session() as session:
        registry.clients.update_client(
            session, "ministry", actor=ACTOR, allowed_scopes=["mapper/unlink"]
        )
    with registry.session() as session:
        client = registry.clients.get_client(session, "ministry")
    assert client.allowed_scopes == ["mapper/link", "mapper/unlink"]


def test_disabling_and_enabling_are_recorded_once_each(registry):
    """Case A15."""
    registry.create_client()
    for enabled in (False, False, True):
        with registry.session() as session:
            registry.clients.set_enabled(session, "ministry", actor=ACTOR, enabled=enabled)
    actions = [record.action for record in _records(registry)]
    assert actions == ["client.created", "client.disabled", "client.enabled"]
    assert _changed_clients(registry) == ["ministry"] * 3


def test_deleting_takes_the_secrets_along(registry):
    """Case A15."""
    registry.create_client()
    with registry.session() as session:
        registry.clients.add_secret(session, "ministry", actor=ACTOR)
    with registry.session() as session:
        registry.clients.delete_client(session, "ministry", actor=ACTOR)
    with registry.session() as session:
        assert session.scalars(select(Client)).all() == []
        assert session.scalars(select(ClientSecret)).all() == []
        with pytest.raises(NotFoundError, match="client list"):
            registry.clients.get_client(session, "ministry")
    assert _records(registry)[-1].action == "client.deleted"
    assert _changed_clients(registry)[-1] == "ministry"


def test_a_change_that_is_rolled_back_leaves_no_record(registry):
    """Case K125."""
    with registry.session() as session:
        registry.clients.create_client(
            session, actor=ACTOR, id="ministry", name="Ministry", allowed_scopes=["mapper/link"]
        )
        session.rollback()
    assert _records(registry) == []
    assert _changed_clients(registry) == []


def test_lists_are_read_in_pages_by_id(registry):
    for number in range(5):
        registry.create_client(id=f"client-{number}")
    with registry.session() as session:
        first = registry.clients.list_clients(session, limit=2)
        rest = registry.clients.list_clients(session, after=first[-1].id)
    assert [client.id for client in first] == ["client-0", "client-1"]
    assert [client.id for client in rest] == ["client-2", "client-3", "client-4"]


@pytest.mark.parametrize("limit", [0, -1, 1_001, 10**9])
def test_a_page_of_any_size_is_refused(shared_registry, limit):
    """Case H94."""
    clients, refused = shared_registry.clients, pytest.raises(InvalidChangeError, match=r"^limit")
    with shared_registry.session() as session, refused:
        clients.list_clients(session, limit=limit)
