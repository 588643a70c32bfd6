"""The range of the ids of a limited caller's clients."""

from datetime import UTC, datetime

from sqlalchemy import insert, text

from authz_server.clients.models import Client
from authz_server.operations.limited_services import limit_services, reach_of
from authz_server.operations.permissions import Limits
from authz_server.operations.reach_reading import find_client_range, load_reach
from authz_server.operations.resource_servers import create_resource_server

#: Ids in the order of a dictionary, with their grants. In that of code points, one in upper case is
#: before every one in lower case.
GRANTS = {
    "apple": "allowed_scopes",
    "Banana": "allowed_resource_servers",
    "banana-2": "allowed_resource_servers",
    "Zebra": "allowed_scopes",
}
VALUES = {"allowed_scopes": ["mapper/link"], "allowed_resource_servers": ["mapper"]}


def _client(name: str, granted: str) -> dict:
    lists = ("default_scopes", "permissions", *VALUES)
    now = datetime.now(UTC)
    return {
        "id": name,
        "kind": "client",
        "name": name,
        "organisation": "Office",
        "enabled": True,
        "authentication_method": "client_secret_basic",
        "grant_types": ["client_credentials"],
        **{each: [] for each in lists},
        granted: VALUES[granted],
        "created_at": now,
        "updated_at": now,
    }


def test_the_range_is_in_the_order_of_the_database(operator):
    """A client that is beyond the others in that order alone is in the range as well."""
    services, limits = operator.services, Limits(resource_servers=frozenset({"mapper"}))
    server = {"name": "Mapper", "identifier": "urn:t:mapper", "scopes": ["mapper/*"]}
    create_resource_server(services, actor=operator.actor, id="mapper", **server)
    with services.transaction() as session:
        session.execute(insert(Client), [_client(*each) for each in GRANTS.items()])
    ends = (min(GRANTS), max(GRANTS))
    if services.database.engine.dialect.name == "postgresql" and _sorts_as_a_dictionary(services):
        ends = ("apple", "Zebra")
    with services.database.reading() as session, operator.statements() as seen:
        reach = load_reach(session, limits)
        seen.clear()
        assert find_client_range(session, reach) == ends
        # Nothing is compared elsewhere, where the order is that of code points.
        assert len(seen) == 1
        none = Limits(resource_servers=frozenset({"none"}))
        assert find_client_range(session, load_reach(session, none)) is None
    few = reach_of(limit_services(services, limits, only_reads=True))
    assert few.client_range is None


def _sorts_as_a_dictionary(services) -> bool:
    """Change the order of the ids to that of a dictionary; return False if there is none."""
    with services.transaction() as session:
        known = "SELECT 1 FROM pg_collation WHERE collname = 'und-x-icu'"
        if session.scalar(text(known)) is None:
            return False
        changed = "client_grant ALTER COLUMN client_id TYPE varchar(128)"
        session.execute(text(f'ALTER TABLE {changed} COLLATE "und-x-icu"'))
    return True
