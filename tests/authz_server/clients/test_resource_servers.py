import pytest

from authz_server.errors import ConflictError, InvalidChangeError, NotFoundError
from authz_server.scopes.models import Scope
from support.registry import ACTOR


@pytest.mark.parametrize(
    "identifier",
    [
        "https://mapper.example",
        "https://mapper.example:8443/v1?country=xx",
        "http://127.0.0.1:9000/mapper",
        "http://localhost:9000/",
        "http://[::1]:9000/",
        "urn:example:mapper",
    ],
)
def test_a_resource_server_is_kept_under_its_identifier(registry, identifier):
    registry.create_resource_server(identifier=identifier, signing_ring="rs256")
    with registry.session() as session:
        client = registry.clients.get_client(session, "mapper", kind="resource_server")
        assert client.resource_server.identifier == identifier
        assert client.resource_server.token_format == "jwt"
        assert client.resource_server.signing_ring == "rs256"
        assert client.grant_types == client.allowed_scopes == []


@pytest.mark.parametrize(
    "identifier",
    [
        "",
        "mapper",
        "/mapper",
        "//mapper.example/",
        "https:",
        "https:///path",
        "https://mapper.example/#part",
        "https://mapper.example/#",
        "https://user@mapper.example/",
        "https://mapper.example:port/",
        "https://mapper.example/with space",
        "https://mapper.example/é",
        "https://mapper.example/\n",
        "https://mapper.example/%",
        "https://mapper.example/%4",
        "https://mapper.example/%zz",
        "https://b%C3%BCcher.example/",
        "https://[fe80::1%25eth0]/",
        "http://mapper.example/",
        "http://127.0.0.1.example/",
        "ftp://mapper.example/",
        "javascript:alert(1)",
        "urn:",
        "urn:x",
        "https://mapper.example/" + "x" * 500,
    ],
)
def test_an_identifier_that_is_no_usable_uri_is_refused(shared_registry, identifier):
    """Case B26."""
    with pytest.raises(InvalidChangeError, match=r"^identifier"):
        shared_registry.create_resource_server(identifier=identifier)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"token_format": "opaque"}, "token_format"),
        ({"signing_ring": "none"}, "signing_ring"),
        ({"permissions": ["everything"]}, "permissions"),
        ({"authentication_method": "private_key_jwt"}, "authentication_method"),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused_by_name(shared_registry, values, named):
    """Case L129."""
    with pytest.raises(InvalidChangeError, match=f"^{named}"):
        shared_registry.create_resource_server(**values)


def test_an_identifier_belongs_to_one_resource_server(registry):
    registry.create_resource_server()
    with pytest.raises(ConflictError, match="belongs to 'mapper'"):
        registry.create_resource_server(id="other")
    registry.create_resource_server(id="other", identifier="https://other.example/")
    with pytest.raises(ConflictError, match="belongs to 'mapper'"), registry.session() as session:
        registry.clients.update_resource_server(
            session, "other", actor=ACTOR, identifier="https://mapper.example/"
        )


def test_an_update_reaches_both_halves(registry):
    registry.create_resource_server()
    with registry.session() as session:
        registry.clients.update_resource_server(
            session,
            "mapper",
            actor=ACTOR,
            name="Mapper 2",
            identifier="https://mapper-2.example/",
            token_format="reference",
            permissions=["introspect:any"],
        )
    with registry.session() as session:
        client = registry.clients.get_client(session, "mapper")
        assert (client.name, client.permissions) == ("Mapper 2", ["introspect:any"])
        assert client.resource_server.identifier == "https://mapper-2.example/"
        assert client.resource_server.token_format == "reference"


def test_the_two_kinds_are_not_taken_for_each_other(registry):
    registry.create_client()
    registry.create_resource_server()
    with registry.session() as session:
        with pytest.raises(NotFoundError, match="resource server 'ministry'"):
            registry.clients.update_resource_server(session, "ministry", actor=ACTOR, name="x")
        with pytest.raises(NotFoundError, match="client 'mapper'"):
            registry.clients.update_client(session, "mapper", actor=ACTOR, name="x")
        assert [c.id for c in registry.clients.list_clients(session)] == ["ministry"]
        servers = registry.clients.list_clients(session, kind="resource_server")
        assert [c.id for c in servers] == ["mapper"]


def test_a_deleted_resource_server_leaves_its_scopes_without_owner(registry):
    registry.create_resource_server()
    with registry.session() as session:
        registry.scopes.assign(session, ["mapper/link"], "mapper", actor=ACTOR)
    with registry.session() as session:
        registry.clients.delete_client(session, "mapper", actor=ACTOR)
    with registry.session() as session:
        assert session.get(Scope, "mapper/link").resource_server_id is None


def test_a_resource_server_to_which_clients_are_held_cannot_vanish(registry):
    registry.create_resource_server()
    registry.create_client(allowed_resource_servers=["mapper"])
    with pytest.raises(ConflictError, match="ministry"), registry.session() as session:
        registry.clients.delete_client(session, "mapper", actor=ACTOR)
    with registry.session() as session:
        assert registry.clients.get_client(session, "mapper").id == "mapper"
