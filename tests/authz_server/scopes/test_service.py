import time
from dataclasses import replace
from threading import Thread

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from authz_server.audit.models import AuditRecord
from authz_server.database.change_feed import Change
from authz_server.errors import ConflictError, InvalidChangeError, NotFoundError
from authz_server.scopes.g2p_connect import CATALOGUE
from authz_server.scopes.models import Scope, ScopeAlias
from authz_server.scopes.service import find_canonical_names, spellings_of
from authz_server.tokens.models import RevocationCutOff
from support.clock import FakeClock
from support.registry import ACTOR, Registry


def _import(registry, catalogue=CATALOGUE):
    with registry.session() as session:
        return registry.scopes.import_catalogue(session, catalogue, actor=ACTOR)


def _add(registry, **values):
    with registry.session() as session:
        return registry.scopes.add_scope(session, actor=ACTOR, **{"name": "land/read"} | values)


def test_an_import_adds_every_scope_and_a_second_one_changes_nothing(registry):
    names = tuple(definition.name for definition in CATALOGUE)
    first, second = _import(registry), _import(registry)
    assert (first.added, first.updated, first.unchanged) == (names, (), ())
    assert (second.added, second.updated, second.unchanged) == ((), (), names)
    with registry.session() as session:
        changes = session.scalars(select(Change.subject).where(Change.kind == "scope")).all()
        records = session.scalars(select(AuditRecord)).all()
    assert sorted(changes) == sorted(names)
    assert {(record.actor, record.action) for record in records} == {(ACTOR, "scope.added")}


def test_an_import_brings_up_to_date_but_leaves_what_operators_decided(registry):
    _import(registry)
    registry.create_resource_server()
    with registry.session() as session:
        registry.scopes.assign(session, ["mapper/link"], "mapper", actor=ACTOR)
        session.get(Scope, "mapper/link").lifetime_cap_seconds = 60
    link = next(each for each in CATALOGUE if each.name == "mapper/link")
    result = _import(registry, [replace(link, description="New.", aliases=("mapper-link",))])
    assert result.updated == ("mapper/link",)
    with registry.session() as session:
        scope = registry.scopes.get_scope(session, "mapper-link")
        assert (scope.name, scope.description) == ("mapper/link", "New.")
        assert (scope.resource_server_id, scope.lifetime_cap_seconds) == ("mapper", 60)
        assert spellings_of(scope) == ["mapper-link", "mapper.link"]


def test_an_import_whose_spelling_means_another_scope_changes_nothing(registry):
    _add(registry, name="mapper.link")
    with pytest.raises(ConflictError, match=r"mapper\.link"):
        _import(registry)
    with registry.session() as session:
        assert [scope.name for scope in registry.scopes.list_scopes(session)] == ["mapper.link"]


def test_every_spelling_finds_its_scope(registry):
    _import(registry)
    asked = ["mapper.link", "mapper/link", "disburse", "MAPPER/LINK", "mapper", "mapper/*"]
    with registry.session() as session:
        found = find_canonical_names(session, asked)
    assert found == {
        "mapper.link": "mapper/link",
        "mapper/link": "mapper/link",
        "disburse": "disburse/disburse",
    }


def test_an_added_scope_is_kept_whole_and_recorded(registry):
    """Case K124."""
    _add(
        registry, aliases=["land.read"], risk="read", lifetime_cap_seconds=120, description="Read."
    )
    with registry.session() as session:
        scope = registry.scopes.get_scope(session, "land.read")
        assert (scope.name, scope.risk, scope.lifetime_cap_seconds) == ("land/read", "read", 120)
        assert spellings_of(scope) == ["land.read"]
        (record,) = session.scalars(select(AuditRecord)).all()
        assert (record.action, record.subject) == ("scope.added", "land/read")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"name": "land/*"}, "scope"),
        ({"aliases": ["land read"]}, "scope"),
        ({"risk": "low"}, "risk"),
        ({"lifetime_cap_seconds": 0}, "lifetime_cap_seconds"),
        ({"description": "two\nlines"}, "description"),
        ({"description": "x" * 501}, "description"),
        ({"resource_server_id": "nobody"}, "resource_server"),
        ({"callback_partner": "land/on-read"}, "callback_partner"),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused_by_name(registry, values, named):
    """Case L129."""
    with pytest.raises(InvalidChangeError, match=f"^{named}"):
        _add(registry, **values)
    with registry.session() as session:
        assert registry.scopes.list_scopes(session) == []


@pytest.mark.parametrize(
    "values",
    [
        {"name": "land/read"},
        {"name": "land.read"},
        {"name": "land/other", "aliases": ["land/read"]},
        {"name": "land/other", "aliases": ["land.read"]},
    ],
)
def test_a_spelling_that_is_taken_is_refused(registry, values):
    _add(registry, aliases=["land.read"])
    with pytest.raises(ConflictError, match="already means the scope 'land/read'"):
        _add(registry, **values)


def test_the_database_itself_keeps_a_spelling_from_meaning_two_scopes(registry):
    _add(registry)
    _add(registry, name="water/read")
    with pytest.raises(IntegrityError), registry.session() as session:
        session.add(ScopeAlias(alias="land/read", scope_name="water/read"))


def test_a_client_owns_no_scopes(registry):
    _add(registry)
    registry.create_client(allowed_scopes=["land/read"])
    with (
        pytest.raises(InvalidChangeError, match=r"^resource_server"),
        registry.session() as session,
    ):
        registry.scopes.assign(session, ["land/read"], "ministry", actor=ACTOR)


def test_scopes_are_assigned_by_any_spelling_and_listed_by_owner(registry):
    _import(registry)
    registry.create_resource_server()
    with registry.session() as session:
        changed = registry.scopes.assign(
            session, ["mapper.link", "mapper/unlink", "mapper/link"], "mapper", actor=ACTOR
        )
    assert changed == ("mapper/link", "mapper/unlink")
    with registry.session() as session:
        owned = registry.scopes.list_scopes(session, resource_server_id="mapper")
        again = registry.scopes.assign(session, ["mapper/link"], "mapper", actor=ACTOR)
    assert [scope.name for scope in owned] == ["mapper/link", "mapper/unlink"]
    assert again == ()


def test_an_unknown_scope_is_not_found_and_nothing_is_assigned(registry):
    _import(registry)
    registry.create_resource_server()
    with pytest.raises(NotFoundError, match="scope list"), registry.session() as session:
        registry.scopes.assign(session, ["mapper/link", "mapper/nothing"], "mapper", actor=ACTOR)
    with registry.session() as session:
        assert registry.scopes.list_scopes(session, resource_server_id="mapper") == []


def test_an_alias_that_is_added_while_its_scope_is_deleted_ends_too(postgresql_url):
    """The deletion waits for the other transaction, and then cuts off all spellings."""
    registry = Registry(postgresql_url, FakeClock())
    _add(registry, aliases=["land.read"])

    def delete() -> None:
        with registry.session() as session:
            registry.scopes.delete_scope(session, "land/read", actor=ACTOR)

    deleting = Thread(target=delete)
    with registry.session() as session:
        aliases = ["land.read", "land-read"]
        registry.scopes.update_scope(session, "land/read", actor=ACTOR, aliases=aliases)
        deleting.start()
        _wait_for_a_lock(registry)
    deleting.join(60)
    with registry.session() as session:
        ended = session.scalars(select(RevocationCutOff.subject)).all()
        assert session.get(Scope, "land/read") is None
    registry.engine.dispose()
    assert sorted(ended) == ["land-read", "land.read", "land/read"]


def _wait_for_a_lock(registry) -> None:
    """Return when a transaction of this database waits for another."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with registry.session() as session:
            if session.scalar(waiting):
                return
        time.sleep(0.01)
    raise AssertionError("no transaction waits")
