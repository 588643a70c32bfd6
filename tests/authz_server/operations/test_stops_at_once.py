"""A stop or a grant, and a change of what it names at the same time."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event

import pytest

from authz_server.assembly import Services
from authz_server.assembly.operator import operator_services
from authz_server.errors import ConflictError, InvalidChangeError
from authz_server.operations.clients import create_client, update_client
from authz_server.operations.one_transaction import run_together
from authz_server.operations.programmes import define_programme, delete_programme, list_programmes
from authz_server.operations.resource_servers import create_resource_server
from authz_server.operations.scope_changes import delete_scope
from authz_server.operations.scope_holders import find_holder
from authz_server.operations.scopes import add_scope, assign_scopes
from authz_server.operations.stops import list_stops, plan_stop, set_stop
from authz_server.settings import load_settings
from authz_server.tokens.programmes import leave_programmes
from support.parties import ACTOR
from support.settings_file import PATIENT_DATABASE, write_settings

Act = Callable[[Services], object]


@pytest.fixture
def services(database_url, tmp_path) -> Iterator[Services]:
    """The parts of the server, with two scopes of a resource server and a programme of one."""
    settings = load_settings(write_settings(tmp_path, database_url, {"database": PATIENT_DATABASE}))
    with operator_services(settings) as services:
        for name in ("one", "two"):
            identifier = f"urn:test:{name}"
            create_resource_server(
                services, actor=ACTOR, id=name, name=name, identifier=identifier, with_secret=False
            )
        for name in ("pay/old", "pay/new"):
            add_scope(
                services,
                actor=ACTOR,
                name=name,
                aliases=[name.replace("/", ".")],
                resource_server_id="one",
            )
        define_programme(services, "cash", scopes=["pay/old"], clients=[], actor=ACTOR)
        yield services


def _during(services: Services, first: Act, second: Act) -> str:
    """Begin a second act before the first one is committed; return the refusal of the second."""
    done, release = Event(), Event()

    def hold() -> None:
        def act(joined, session) -> None:
            first(joined)
            session.flush()
            done.set()
            release.wait(20)

        run_together(services, act)

    with ThreadPoolExecutor(2) as threads:
        holding = threads.submit(hold)
        try:
            assert done.wait(20)
            waiting = threads.submit(second, services)
            # Long enough for one that does not wait.
            wait([waiting], timeout=0.5)
        finally:
            release.set()
        holding.result(30)
        try:
            waiting.result(30)
        except (ConflictError, InvalidChangeError) as error:
            return str(error)
    return ""


def _stop(services: Services, kind: str, subject: str) -> Act:
    planned = plan_stop(services, kind, subject)
    return lambda joined: set_stop(joined, planned, reason="INC-1", actor=ACTOR)


def _delete_scope(services: Services) -> None:
    with services.transaction() as session:
        services.scopes.delete_scope(session, "pay/old", actor=ACTOR)
        leave_programmes(session, "scopes", "pay/old", actor=ACTOR, at=services.clock())


def _take_spelling(services: Services) -> None:
    with services.transaction() as session:
        services.scopes.update_scope(session, "pay/old", actor=ACTOR, aliases=[])


def _define(services: Services) -> None:
    define_programme(services, "cash", scopes=["pay/new"], clients=[], actor=ACTOR)


def test_a_programme_that_is_defined_anew_is_stopped_as_it_is_then(services):
    """Otherwise its new member would get tokens although the programme counts as stopped."""
    assert _during(services, _define, _stop(services, "programme", "cash")) == ""
    ((stop,), (programme,)) = list_stops(services), list_programmes(services)
    assert stop.scopes == programme.scopes == ("pay/new",)


@pytest.mark.parametrize(
    ("kind", "subject", "change"),
    [
        ("programme", "cash", _define),
        ("programme", "cash", lambda joined: delete_programme(joined, "cash", actor=ACTOR)),
        ("programme", "cash", _delete_scope),
        ("scope", "pay/old", _delete_scope),
        ("scope", "pay/old", _take_spelling),
        ("resource-server", "one", _delete_scope),
        (
            "resource-server",
            "one",
            lambda joined: assign_scopes(joined, ["pay/old"], "two", take_over=True, actor=ACTOR),
        ),
    ],
    ids=[
        "define",
        "undefine",
        "delete-member",
        "delete-scope",
        "take-spelling",
        "delete-of-server",
        "assign",
    ],
)
def test_what_is_being_stopped_is_not_changed(services, kind, subject, change):
    """The change waits for the stop, and is refused by it."""
    refusal = _during(services, _stop(services, kind, subject), change)
    assert "is stopped" in refusal


def _create_holder(services: Services) -> None:
    create_client(services, actor=ACTOR, id="holder", name="H", allowed_scopes=["pay.old"])


def _grant(services: Services) -> None:
    update_client(services, "plain", actor=ACTOR, allowed_scopes=["pay.old"])


def _delete(services: Services) -> None:
    delete_scope(services, "pay/old", actor=ACTOR)


@pytest.mark.parametrize("grant", [_create_holder, _grant], ids=["create", "update"])
@pytest.mark.parametrize("comes_first", [True, False], ids=["grant", "deletion"])
def test_no_client_keeps_a_scope_that_is_deleted_at_the_same_time(services, grant, comes_first):
    """The later of the two waits for the other one, and is refused."""
    create_client(services, actor=ACTOR, id="plain", name="P", allowed_scopes=[])
    if comes_first:
        assert "may ask for it" in _during(services, grant, _delete)
    else:
        assert "has no scope" in _during(services, _delete, grant)
    with services.database.reading() as session:
        is_held = find_holder(session, {"pay/old"}) is not None
    assert is_held == comes_first
