"""Tokens of a client that is deleted, created again, disabled and enabled."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from authz_server.tokens.models import RevocationCutOff
from support.parties import ACTOR
from support.stage import FORMATS, INACTIVE, METHODS, ApplicationFixture
from support.unread import unread_change


def create_again(stage: ApplicationFixture, client, name: str):
    """Create a client of the same id, with a secret of its own."""
    with stage.change() as (services, session):
        services.clients.create_client(
            session,
            actor=ACTOR,
            id=client.id,
            name="Successor",
            authentication_method=client.method,
            allowed_scopes=[f"{name}/read"],
        )
        return stage.add_secret(session, client.id, client.method.removeprefix("client_secret_"))


def delete(stage: ApplicationFixture, client) -> None:
    with stage.change() as (services, session):
        services.clients.delete_client(session, client.id, actor=ACTOR)


def switch(
    stage: ApplicationFixture, client, *, enabled: bool, revoke_tokens: bool = False
) -> None:
    with stage.change() as (services, session):
        services.clients.set_enabled(
            session, client.id, actor=ACTOR, enabled=enabled, revoke_tokens=revoke_tokens
        )


@pytest.mark.parametrize("pause_seconds", [0.0, 0.001, 1.0, 9.0])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", FORMATS)
def test_a_deleted_clients_tokens_are_not_those_of_its_successor(
    stage: ApplicationFixture, method, form, pause_seconds
):
    """Case Q225: however soon it is created again."""
    name, client = f"{method}-{form}", stage.new_client(method)
    watcher = stage.new_client(method, permissions=["introspect:any"])
    tokens = [stage.token(f"{name}/read", client)]
    stage.clock.advance(pause_seconds)
    tokens.append(stage.token(f"{name}/read", client))
    delete(stage, client)
    stage.clock.advance(pause_seconds)
    successor = create_again(stage, client, name)
    for token in tokens:
        for caller in (name, successor, watcher):
            assert stage.introspect(token, caller) == INACTIVE
    stage.clock.advance(1)
    assert stage.introspect(stage.token(f"{name}/read", successor), name)["active"] is True


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("form", FORMATS)
def test_a_token_issued_by_a_process_that_had_not_read_of_the_deletion_ends_too(
    stage: ApplicationFixture, form
):
    """Case Q225."""
    name, client = f"basic-{form}", stage.new_client()
    with unread_change(stage.services) as session:
        stage.services.clients.delete_client(session, client.id, actor=ACTOR)
    stage.clock.advance(0.2)
    late = stage.token(f"{name}/read", client)
    stage.clock.advance(0.2)
    create_again(stage, client, name)
    assert stage.introspect(late, name) == INACTIVE


def test_a_client_whose_id_was_never_used_has_no_cut_off(stage: ApplicationFixture):
    client = stage.new_client()
    with stage.services.database.reading() as session:
        cut_off = select(RevocationCutOff.id).where(RevocationCutOff.subject == client.id)
        assert session.scalar(cut_off) is None


def delete_resource_server(stage: ApplicationFixture, session, name: str) -> None:
    stage.services.clients.delete_client(session, name, actor=ACTOR)


def create_resource_server(stage: ApplicationFixture, session, name: str) -> None:
    stage.services.clients.create_resource_server(
        session, actor=ACTOR, id=name, name="Successor", identifier=f"https://{name}.example"
    )
    stage.services.scopes.assign(session, [f"{name}/read"], name, actor=ACTOR)


def delete_scope(stage: ApplicationFixture, session, name: str) -> None:
    stage.services.scopes.delete_scope(session, f"{name}/read", actor=ACTOR)


def create_scope(stage: ApplicationFixture, session, name: str) -> None:
    stage.services.scopes.add_scope(
        session, actor=ACTOR, name=f"{name}/read", resource_server_id=name
    )


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("end", "begin"),
    [(delete_resource_server, create_resource_server), (delete_scope, create_scope)],
    ids=["resource server", "scope"],
)
def test_tokens_end_with_their_resource_server_and_with_their_scope(
    stage: ApplicationFixture, end, begin
):
    """Case Q225: also where both are created again, and for a process that reads of it later."""
    name, client = end.__name__.replace("_", "-"), stage.new_client()
    scope = f"{name}/read"
    with stage.change() as (services, session):
        services.scopes.add_scope(session, actor=ACTOR, name=scope)
        create_resource_server(stage, session, name)
        services.clients.update_client(
            session, client.id, actor=ACTOR, allowed_scopes=[scope], default_scopes=[]
        )
    tokens = [stage.token(scope, client)]
    assert stage.introspect(tokens[0], client)["active"] is True
    with unread_change(stage.services) as session:
        end(stage, session, name)
    stage.clock.advance(0.2)
    tokens.append(stage.token(scope, client))
    stage.clock.advance(0.2)
    with stage.change() as (_, session):
        begin(stage, session, name)
    assert [stage.introspect(each, client) for each in tokens] == [INACTIVE, INACTIVE]
    stage.clock.advance(1)
    assert stage.introspect(stage.token(scope, client), client)["active"] is True


@pytest.mark.parametrize("step", ["neither", "disable", "enable"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", FORMATS)
def test_earlier_tokens_are_active_again_unless_they_are_revoked(
    stage: ApplicationFixture, method, form, step
):
    """Case Q226."""
    name, client = f"{method}-{form}", stage.new_client(method)
    token = stage.token(f"{name}/read", client)
    switch(stage, client, enabled=False, revoke_tokens=step == "disable")
    assert stage.introspect(token, name) == INACTIVE
    stage.clock.advance(2)
    switch(stage, client, enabled=True, revoke_tokens=step == "enable")
    assert (stage.introspect(token, name) == INACTIVE) is (step != "neither")
    stage.clock.advance(1)
    assert stage.introspect(stage.token(f"{name}/read", client), name)["active"] is True


def test_a_cut_off_counts_from_the_later_clock(stage: ApplicationFixture, monkeypatch):
    """Case Q225: the database's, where it is ahead of the machine's."""
    measured = "authz_server.tokens.issue_times.measure_clock_offset_seconds"
    for offset, later in ((3.0, 3.0), (-3.0, 0.0)):
        monkeypatch.setattr(measured, lambda _session, found=offset: found)
        with stage.services.database.reading() as session:
            present = stage.services.revocations.issue_times.find_latest(session)
        assert present - stage.clock() == timedelta(seconds=later)
