"""Operators, their roles, and the links by which they enrol a passkey."""

import threading
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from authz_server.database.operator_sessions import OperatorPasskey, OperatorSession
from authz_server.database.operators import OperatorEnrolment
from authz_server.errors import ConflictError, InvalidChangeError, NotFoundError, OperatorError
from authz_server.operations.enrolment import (
    VALID_FOR,
    EnrolmentRefusedError,
    find_enrolment,
    issue_enrolment,
    use_enrolment,
)
from authz_server.operations.operator_roles import AssignedRole
from authz_server.operations.operators import (
    create_operator,
    delete_operator,
    find_grants,
    get_operator,
    list_operators,
    renew_enrolment,
    set_operator_enabled,
    update_operator,
)
from authz_server.operations.permissions import Limits
from authz_server.operations.resource_servers import create_resource_server

ACTOR = "operator:tester"
OFFICER = AssignedRole(role="security-officer")
AUDITOR = AssignedRole(role="auditor")


@pytest.fixture
def services(operator):
    """The parts of the server on each database."""
    return operator.services


def _create(services, name, *roles):
    return create_operator(services, actor=ACTOR, name=name, roles=roles)


def _open_session(services, operator_id, digest=b"d" * 32):
    now = services.clock()
    with services.transaction() as session:
        session.add(
            OperatorSession(
                digest=digest,
                operator_id=operator_id,
                issuer="",
                subject="",
                name="ada",
                groups=[],
                amr=[],
                created_at=now,
                seen_at=now,
                authenticated_at=now,
                expires_at=now + timedelta(hours=1),
            )
        )


def _count(services, table) -> int:
    with services.database.reading() as session:
        return session.scalar(select(func.count()).select_from(table))


def test_an_operator_is_created_listed_changed_and_deleted(services, operator):
    """Each change has a record with the operator's name."""
    made = _create(services, "ada", OFFICER)
    assert "/enrol/" in made.enrolment.link
    assert made.enrolment.link not in repr(made)
    _create(services, "بوب")
    assert [each.name for each in list_operators(services)] == ["ada", "بوب"]
    changed = update_operator(services, "بوب", actor=ACTOR, roles=[AUDITOR])
    assert [each.role for each in changed.roles] == ["auditor"]
    assert "audit:read" in changed.permissions
    assert get_operator(services, changed.id) == changed
    update_operator(services, "بوب", actor=ACTOR, roles=[AUDITOR])
    delete_operator(services, "بوب", actor=ACTOR)
    with pytest.raises(NotFoundError):
        get_operator(services, "بوب")
    assert operator.records() == [
        (ACTOR, "operator.created", "ada"),
        (ACTOR, "operator.created", "بوب"),
        (ACTOR, "operator.roles_changed", "بوب"),
        (ACTOR, "operator.deleted", "بوب"),
    ]


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a/b", "x" * 101, "a\nb", "a\u202eb", "<b>"])
def test_a_name_that_records_cannot_tell_apart_is_refused(services, name):
    """Letters, digits and some marks, without spaces."""
    with pytest.raises(InvalidChangeError, match=r"^name: "):
        _create(services, name)


def test_a_taken_name_is_refused(services):
    """Also in another form of the same characters (NFC)."""
    _create(services, "rené")
    with pytest.raises(ConflictError):
        _create(services, "rene\u0301")


@pytest.mark.parametrize(
    ("roles", "problem"),
    [
        ([AssignedRole(role="king")], "there is no role"),
        ([AUDITOR, AUDITOR], "named twice"),
        ([AssignedRole(role="api-owner")], "needs the resource servers"),
        ([AssignedRole(role="api-owner", organisations=("Own",))], "needs the resource servers"),
        ([AssignedRole(role="auditor", resource_servers=("none",))], "no resource server"),
        ([AssignedRole(role="security-officer", organisations=("Own",))], "whole server"),
        ([AssignedRole(role="auditor", organisations=("a\nb",))], "control"),
        (
            [
                AssignedRole(role="auditor", organisations=("Own",)),
                AssignedRole(role="api-owner", resource_servers=("mapper",)),
            ],
            "both permit",
        ),
    ],
    ids=str,
)
def test_roles_keep_their_rules(services, roles, problem):
    """At creation and at a change."""
    create_resource_server(
        services, actor=ACTOR, id="mapper", name="Mapper", identifier="urn:test:mapper"
    )
    with pytest.raises(InvalidChangeError, match=problem):
        _create(services, "ada", *roles)
    _create(services, "bob")
    with pytest.raises(InvalidChangeError, match=problem):
        update_operator(services, "bob", actor=ACTOR, roles=roles)


def test_roles_of_one_kind_of_limit_are_joined(services):
    """Each permission has the limits of all roles that give it; a disabled operator has none."""
    for name in ("one", "two"):
        create_resource_server(
            services, actor=ACTOR, id=name, name=name, identifier=f"urn:test:{name}"
        )
    made = _create(
        services,
        "ada",
        AssignedRole(role="api-owner", resource_servers=("one",)),
        AssignedRole(role="auditor", resource_servers=("two",)),
        AssignedRole(role="approver"),
    )
    with services.database.reading() as session:
        grants = find_grants(services, session, made.operator.id)
    limits = {
        permission: [each.limits for each in grants if permission in each.permissions]
        for permission in ("audit:read", "scopes:write", "clients:read")
    }
    joined, *others = limits["audit:read"]
    assert joined.merged(others[0]) == Limits(resource_servers=frozenset({"one", "two"}))
    assert limits["scopes:write"] == [Limits(resource_servers=frozenset({"one"}))]
    assert Limits() in limits["clients:read"]
    set_operator_enabled(services, "ada", actor=ACTOR, enabled=False)
    with services.database.reading() as session:
        assert find_grants(services, session, made.operator.id) == ()


def test_a_role_keeps_its_time_until_its_limits_change(services):
    """An approver decides on what was filed since then."""
    first = _create(services, "ada", AUDITOR).operator.roles[0].granted_at
    limited = AssignedRole(role="auditor", organisations=("Own",))
    for roles, kept in (([AUDITOR, OFFICER], True), ([limited], False)):
        _create(services, f"other{len(roles)}", OFFICER)
        changed = update_operator(services, "ada", actor=ACTOR, roles=roles)
        (role,) = [each for each in changed.roles if each.role == "auditor"]
        assert (role.granted_at == first) is kept


def test_the_last_enabled_security_officer_stays(services):
    """Neither disabled, demoted nor deleted, by herself or by others; a second one frees her."""
    ada = _create(services, "ada", OFFICER, AUDITOR).operator
    disabled = _create(services, "old", OFFICER).operator
    set_operator_enabled(services, "old", actor=ACTOR, enabled=False)
    refused = (
        lambda: set_operator_enabled(services, "ada", actor=ACTOR, enabled=False),
        lambda: delete_operator(services, ada.id, actor=ACTOR),
        lambda: update_operator(services, "ada", actor=ACTOR, roles=[AUDITOR]),
    )
    for act in refused:
        with pytest.raises(ConflictError, match="ada is the last enabled security officer"):
            act()
    assert get_operator(services, "ada").state == "enabled"
    set_operator_enabled(services, disabled.id, actor=ACTOR, enabled=True)
    assert refused[0]().state == "disabled"


def test_two_officers_who_disable_each_other_leave_one(services):
    """The second of two concurrent changes finds herself the last."""
    names = ("ada", "bob")
    for name in names:
        _create(services, name, OFFICER)
    barrier, refused = threading.Barrier(2), []

    def disable(name: str) -> None:
        barrier.wait(10)
        try:
            set_operator_enabled(services, name, actor=ACTOR, enabled=False)
        except ConflictError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=disable, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    states = sorted(each.state for each in list_operators(services))
    assert (states, len(refused)) == (["disabled", "enabled"], 1)


def test_an_operator_does_not_change_her_own_roles(services):
    """Another operator does."""
    ada = _create(services, "ada", OFFICER).operator
    with pytest.raises(OperatorError, match="Another operator"):
        update_operator(
            services, "ada", actor=ACTOR, roles=[OFFICER, AUDITOR], acting_operator=ada.id
        )
    assert len(get_operator(services, "ada").roles) == 1


@pytest.mark.parametrize("ends", ["disable", "delete"])
def test_to_disable_or_delete_ends_sessions_and_links(services, ends):
    """In the same transaction; those of others stay."""
    _create(services, "boss", OFFICER)
    ada = _create(services, "ada").operator
    _open_session(services, ada.id)
    _open_session(services, "another", b"a" * 32)
    with services.transaction() as session:
        session.add(
            OperatorPasskey(
                credential_id=b"c",
                operator_id=ada.id,
                name="key",
                public_key=b"k",
                sign_count=0,
                transports=[],
                created_at=services.clock(),
            )
        )
    if ends == "disable":
        set_operator_enabled(services, "ada", actor=ACTOR, enabled=False)
    else:
        delete_operator(services, "ada", actor=ACTOR)
    assert _count(services, OperatorSession) == 1
    # The link of the other operator.
    assert _count(services, OperatorEnrolment) == 1
    assert _count(services, OperatorPasskey) == (1 if ends == "disable" else 0)


def test_a_link_is_used_once_and_for_15_minutes(services):
    """Its token is stored as a digest; another link ends it."""
    made = _create(services, "ada")
    token = made.enrolment.link.rpartition("/")[2]
    now = services.clock()
    assert made.enrolment.expires_at - now <= VALID_FOR == timedelta(minutes=15)
    with services.transaction() as session:
        (digest,) = session.scalars(select(OperatorEnrolment.digest)).all()
        assert token.encode() not in digest
        assert find_enrolment(session, token, now).name == "ada"
        for wrong in ("", "x", f"{token}x", "é", "x" * 10_000, "\udcff"):
            with pytest.raises(EnrolmentRefusedError):
                use_enrolment(session, wrong, now)
        with pytest.raises(EnrolmentRefusedError):
            use_enrolment(session, token, now + VALID_FOR)
        assert use_enrolment(session, token, now).id == made.operator.id
    for use in (find_enrolment, use_enrolment):
        with services.transaction() as session, pytest.raises(EnrolmentRefusedError):
            use(session, token, now)
    first = renew_enrolment(services, "ada", actor=ACTOR).link.rpartition("/")[2]
    with services.transaction() as session:
        issue_enrolment(session, made.operator.id, now)
        with pytest.raises(EnrolmentRefusedError):
            find_enrolment(session, first, now)


def test_the_link_of_a_disabled_operator_is_refused(services):
    """And none is issued."""
    made = _create(services, "ada")
    token = made.enrolment.link.rpartition("/")[2]
    set_operator_enabled(services, "ada", actor=ACTOR, enabled=False)
    with services.transaction() as session, pytest.raises(EnrolmentRefusedError):
        use_enrolment(session, token, services.clock())
    with pytest.raises(ConflictError):
        renew_enrolment(services, "ada", actor=ACTOR)
