from datetime import UTC, datetime, timedelta

import pytest

from authz_server.errors import InvalidChangeError, NotFoundError
from authz_server.operations import client_secrets, clients, resource_servers
from authz_server.operations.client_search import ClientFilters, find_clients
from authz_server.operations.resource_servers import create_resource_server


def _create(operator, **values):
    fields = {"id": "ministry", "name": "Ministry", "allowed_scopes": ["mapper/link"]} | values
    return clients.create_client(operator.services, actor=operator.actor, **fields)


def test_registering_returns_the_client_its_secret_and_the_scopes_without_owner(operator):
    """The struct holds everything that a way in has to show, and records name the actor."""
    created = _create(operator)
    assert created.client == clients.get_client(operator.services, "ministry")
    assert created.unowned_scopes == ("mapper/link",)
    assert [secret.id for secret in created.client.secrets] == [created.secret.id]
    assert len(created.secret.value) == 43
    assert operator.records() == [
        (operator.actor, "client.created", "ministry"),
        (operator.actor, "client.secret_added", "ministry"),
    ]


def test_the_secret_is_in_no_repr(operator):
    """A struct in a log line or a traceback does not show the secret."""
    created = _create(operator)
    assert created.secret.value not in repr(created)


def test_a_pattern_stands_for_the_scopes_below_it(operator):
    """``mapper/*`` is a rule of the operation, whatever the way in."""
    created = _create(operator, allowed_scopes=["mapper/*"], with_secret=False)
    assert len(created.client.allowed_scopes) == 15
    assert created.secret is None
    with pytest.raises(NotFoundError, match="land"):
        clients.update_client(
            operator.services, "ministry", actor=operator.actor, allowed_scopes=["land/*"]
        )


def test_a_registration_whose_secret_is_refused_is_not_made(operator):
    """The client and its first secret are one transaction."""
    with pytest.raises(InvalidChangeError):
        _create(operator, imported_secret=b"")
    assert find_clients(operator.services, ClientFilters()).clients == ()
    assert operator.records() == []


def test_an_update_returns_what_changed(operator):
    """Fields that were named with the value that they had are not among them."""
    before = _create(operator).client
    changed = clients.update_client(
        operator.services, "ministry", actor=operator.actor, name="Ministry", organisation="State"
    )
    assert changed.changed == ("organisation",)
    assert changed.client == clients.get_client(operator.services, "ministry")
    assert (before.organisation, changed.client.organisation) == ("", "State")


def test_switching_returns_whether_it_had_an_effect(operator):
    """The second time changes nothing and records nothing."""
    _create(operator)
    off = [
        clients.set_enabled(
            operator.services, "ministry", kind="client", actor=operator.actor, enabled=False
        )
        for _ in range(2)
    ]
    assert [each.changed for each in off] == [True, False]
    assert clients.get_client(operator.services, "ministry").state == "disabled"
    assert [action for _, action, _ in operator.records()].count("client.disabled") == 1


def test_an_operation_for_clients_does_not_reach_a_resource_server(operator):
    """Each operation names the kind; an id of the other kind is not found, nothing is changed."""
    services, actor = operator.services, operator.actor
    create_resource_server(
        services, actor=actor, id="mapper", name="Mapper", identifier="https://mapper.example"
    )
    before = operator.records()
    for attempt in (
        lambda: clients.get_client(services, "mapper"),
        lambda: clients.set_enabled(
            services, "mapper", kind="client", actor=actor, enabled=False, revoke_tokens=True
        ),
        lambda: clients.delete_client(services, "mapper", kind="client", actor=actor),
        lambda: clients.update_client(services, "mapper", actor=actor, name="Other"),
        lambda: client_secrets.add_secret(services, "mapper", kind="client", actor=actor),
        lambda: client_secrets.list_secrets(services, "mapper", kind="client"),
        lambda: client_secrets.is_last_secret(services, "mapper", "x", kind="client"),
        lambda: client_secrets.end_secret(services, "mapper", "x", kind="client", actor=actor),
    ):
        with pytest.raises(NotFoundError, match="no client 'mapper'"):
            attempt()
    assert operator.records() == before


def test_the_last_secret_is_the_one_beside_which_none_works_then(operator):
    """A secret that ends before the other does is not counted beside it."""
    services, actor = operator.services, operator.actor
    first = _create(operator).secret
    now = datetime.now(UTC)
    assert client_secrets.is_last_secret(services, "ministry", first.id, kind="client")
    second = client_secrets.add_secret(
        services, "ministry", kind="client", actor=actor, expires_at=now + timedelta(hours=1)
    )
    assert not client_secrets.is_last_secret(services, "ministry", first.id, kind="client")
    assert client_secrets.is_last_secret(
        services, "ministry", first.id, kind="client", at=now + timedelta(hours=2)
    )
    ended = client_secrets.end_secret(services, "ministry", second.id, kind="client", actor=actor)
    assert (ended.works, ended.ends_at <= datetime.now(UTC)) == (False, True)
    assert client_secrets.list_secrets(services, "ministry", kind="client")[1] == ended


def test_a_list_takes_as_many_statements_for_many_as_for_one(operator):
    """Secrets and scopes are read for all together."""
    counts = []
    for number in range(3):
        _create(operator, id=f"client-{number}")
        create_resource_server(
            operator.services,
            actor=operator.actor,
            id=f"server-{number}",
            name="Server",
            identifier=f"https://server-{number}.example",
        )
        with operator.statements() as statements:
            listed = find_clients(operator.services, ClientFilters()).clients
            servers = resource_servers.list_resource_servers(operator.services)
        assert len(listed) == len(servers) == number + 1
        assert all(len(each.secrets) == 1 for each in (*listed, *servers))
        counts.append(len(statements))
    assert counts[0] == counts[1] == counts[2]
