import pytest

from authz_server.errors import ConflictError
from authz_server.operations import resource_servers
from authz_server.operations.scopes import assign_scopes, get_scope


def _create(operator, name="mapper", **values):
    fields = {"id": name, "name": name.title(), "identifier": f"https://{name}.example"}
    return resource_servers.create_resource_server(
        operator.services, actor=operator.actor, **fields | values
    )


def test_registering_returns_the_resource_server_its_scopes_and_its_secret(operator):
    """Scopes are given in the order named and shown by name."""
    created = _create(operator, scopes=["mapper.resolve", "mapper/link"])
    assert created.assigned_scopes == ("mapper/resolve", "mapper/link")
    assert created.resource_server.scopes == ("mapper/link", "mapper/resolve")
    assert created.secret.value not in repr(created)
    shown = resource_servers.get_resource_server(operator.services, "mapper")
    assert shown == created.resource_server
    assert resource_servers.list_resource_servers(operator.services) == (shown,)


def test_a_scope_of_another_owner_makes_the_whole_registration_fail(operator):
    """Nothing of it is kept: neither the resource server nor the scopes that were free."""
    _create(operator, scopes=["mapper/link"])
    before = operator.records()
    with pytest.raises(ConflictError, match="belongs to mapper"):
        _create(operator, "other", scopes=["mapper/resolve", "mapper/link"])
    assert operator.records() == before
    assert get_scope(operator.services, "mapper/resolve").resource_server is None
    taken = _create(operator, "other", scopes=["mapper/link"], take_over=True)
    assert taken.assigned_scopes == ("mapper/link",)


def test_assigning_returns_the_scopes_that_changed_owner(operator):
    """Those that belong to it already are not among them."""
    _create(operator, scopes=["mapper/link"])
    changed = assign_scopes(
        operator.services,
        ["mapper/link", "mapper/resolve"],
        "mapper",
        actor=operator.actor,
        take_over=False,
    )
    assert changed == ("mapper/resolve",)


def test_an_update_returns_what_changed(operator):
    """Its URI and its name are fields of two tables and come back alike."""
    _create(operator)
    changed = resource_servers.update_resource_server(
        operator.services,
        "mapper",
        actor=operator.actor,
        name="Mapper 2",
        identifier="https://mapper.example/v2",
    )
    assert changed.changed == ("name", "identifier")
    assert changed.resource_server.identifier == "https://mapper.example/v2"
