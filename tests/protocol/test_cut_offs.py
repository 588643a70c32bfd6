"""Cut-offs: all tokens of a client, a key, a scope, or all at all, issued up to an instant.

Time goes by a microsecond with each look at the clock, so that everything happens in one second.
"""

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from authz_server.tokens.claims import read_instant
from authz_server.tokens.models import ReferenceToken, RevocationCutOff, RevokedToken
from support.clock import FakeClock
from support.parties import ACTOR
from support.stage import FORMATS, INACTIVE, METHODS, ApplicationFixture

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
KINDS = ("client", "scope", "key", "all")


class TickingClock(FakeClock):
    """A clock that goes on by a microsecond whenever it is read, by whatever thread."""

    def __init__(self) -> None:
        super().__init__()
        self._ticks = itertools.count(1)

    def __call__(self) -> datetime:
        return self.now + next(self._ticks) * MICROSECOND


@pytest.fixture(scope="module")
def stage(module_database_url: str, tmp_path_factory) -> Iterator[ApplicationFixture]:
    """The application with a clock that ticks."""
    directory = tmp_path_factory.mktemp("stage")
    stage = ApplicationFixture(directory, module_database_url, clock=TickingClock())
    yield stage
    stage.close()


def now_microseconds(stage: ApplicationFixture) -> int:
    return (stage.clock() - EPOCH) // MICROSECOND


def cut_off(stage: ApplicationFixture, kind: str, subject: str, instant: int | None = None) -> int:
    """Cut off as the command does, this process not told; return the instant."""
    with stage.services.database.transaction() as session:
        at = now_microseconds(stage) if instant is None else instant
        stage.services.revocations.cut_off(
            session, kind=kind, subject=subject, instant_microseconds=at, actor=ACTOR, reason="test"
        )
    return at


def subject_of(kind: str, stage: ApplicationFixture, client: str, scope: str) -> str:
    return {"client": client, "scope": scope, "key": stage.kid, "all": ""}[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", FORMATS)
def test_what_was_issued_before_ends_and_what_comes_after_counts(stage, method, form, kind):
    """Case F72."""
    name, client = f"{method}-{form}", stage.new_client(method)
    before = [stage.token(f"{name}/read {name}/write", client) for _ in range(3)]
    cut_off(stage, kind, subject_of(kind, stage, client.id, f"{name}/write"))
    after = [stage.token(f"{name}/read {name}/write", client) for _ in range(3)]
    # No key signed a reference token.
    ended = not (kind == "key" and form == "reference")
    for token in before:
        assert (stage.introspect(token, name) == INACTIVE) is ended
        assert (stage.introspect(token, client) == INACTIVE) is ended
    assert all(stage.introspect(token, name)["active"] for token in after)


@pytest.mark.parametrize("form", FORMATS)
def test_other_clients_and_scopes_are_not_concerned(stage, form):
    """Case F72."""
    name, client, other = f"basic-{form}", stage.new_client(), stage.new_client()
    theirs = stage.token(f"{name}/read {name}/write", other)
    read_only = stage.token(f"{name}/read", client)
    cut_off(stage, "client", f"{client.id}x")
    cut_off(stage, "scope", f"{name}/write")
    cut_off(stage, "key", "another-key")
    assert stage.introspect(read_only, name)["active"] is True
    assert stage.introspect(theirs, name) == INACTIVE
    theirs = stage.token(f"{name}/read", other)
    cut_off(stage, "client", client.id)
    assert stage.introspect(read_only, name) == INACTIVE
    assert stage.introspect(theirs, name)["active"] is True


@pytest.mark.parametrize("form", FORMATS)
def test_an_alias_is_cut_off_with_its_scope(stage, form):
    """Case F72."""
    name, client = f"basic-{form}", stage.new_client()
    with stage.change() as (services, session):
        services.scopes.add_scope(
            session,
            actor=ACTOR,
            name=f"{name}/{client.id}",
            aliases=[f"{name}.{client.id}"],
            resource_server_id=name,
        )
        services.clients.update_client(
            session,
            client.id,
            actor=ACTOR,
            allowed_scopes=[f"{name}.{client.id}"],
            default_scopes=[],
        )
    token = stage.token(f"{name}.{client.id}", client)
    assert stage.introspect(token, name)["active"] is True
    cut_off(stage, "scope", f"{name}/{client.id}")
    assert stage.introspect(token, name) == INACTIVE


@pytest.mark.parametrize("form", FORMATS)
def test_the_strictest_of_several_decides(stage, form):
    """Case F72."""
    name, client = f"basic-{form}", stage.new_client()
    first = stage.token(f"{name}/read", client)
    strict = cut_off(stage, "client", client.id)
    second = stage.token(f"{name}/read", client)
    # An earlier instant, recorded later, takes nothing back.
    cut_off(stage, "client", client.id, strict - 5_000_000)
    assert stage.introspect(first, name) == INACTIVE
    assert stage.introspect(second, name)["active"] is True


@pytest.mark.parametrize("form", FORMATS)
def test_the_very_microsecond_is_included(stage, form):
    """Case F72."""
    name, client = f"basic-{form}", stage.new_client()
    tokens = [stage.token(f"{name}/read", client) for _ in range(3)]
    answers = [stage.introspect(token, name) for token in tokens]
    instants = [read_instant(answer["jti"], answer["iat"]) for answer in answers]
    assert instants[0] < instants[1] < instants[2] < instants[0] + 1_000_000
    cut_off(stage, "client", client.id, instants[1])
    states = [stage.introspect(token, name)["active"] for token in tokens]
    assert states == [False, False, True]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMATS)
def test_cut_off_while_tokens_are_issued(stage, form, kind):
    """Case F72."""
    if kind == "key" and form == "reference":
        kind = "client"
    name, client, issued = f"basic-{form}", stage.new_client(), []
    stop = threading.Event()

    def issue() -> None:
        # The pause leaves SQLite's one writer's place to others now and then.
        while not stop.wait(0.002):
            began = now_microseconds(stage)
            token = stage.token(f"{name}/read", client)
            issued.append((began, token, now_microseconds(stage)))

    def await_issued(number: int) -> None:
        deadline = time.monotonic() + 20
        while len(issued) < number and time.monotonic() < deadline:
            time.sleep(0.001)

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(issue) for _ in range(3)]
        try:
            await_issued(8)
            subject = subject_of(kind, stage, client.id, f"{name}/read")
            instant = cut_off(stage, kind, subject)
            await_issued(len(issued) + 8)
        finally:
            stop.set()
        assert [each.exception() for each in running] == [None] * 3
    watcher = stage.new_client(permissions=["introspect:any"])
    states = [(began, stage.introspect(token, watcher), end) for began, token, end in issued]
    assert min(began for began, _, _ in states) < instant < max(end for _, _, end in states)
    assert all(answer == INACTIVE for _, answer, end in states if end < instant)
    assert all(answer["active"] for began, answer, _ in states if began > instant)
    active = [answer for _, answer, _ in states if answer["active"]]
    # The instant of the token itself decides, to the microsecond.
    assert all(read_instant(each["jti"], each["iat"]) > instant for each in active)


def test_a_cut_off_costs_the_same_however_many_tokens_live(stage):
    """Case F72."""
    client = stage.new_client()
    for form in FORMATS:
        for _ in range(30):
            stage.token(f"basic-{form}/read", client)

    def rows() -> list[int]:
        with stage.services.database.reading() as session:
            models = (RevocationCutOff, RevokedToken, ReferenceToken)
            return [session.scalar(select(func.count()).select_from(each)) for each in models]

    cut_offs, revoked, references = rows()
    cut_off(stage, "client", client.id)
    # One row: no token is touched.
    assert rows() == [cut_offs + 1, revoked, references]
