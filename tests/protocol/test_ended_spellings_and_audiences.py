"""Tokens of deleted scopes, removed aliases and deleted resource servers stay inactive."""

from collections.abc import Iterator
from itertools import count

import pytest
from sqlalchemy.orm import Session

from authz_server.operations.explain_token import explain_token
from authz_server.scopes.definition import ScopeDefinition
from support.parties import ACTOR, Credentials
from support.protocol import Protocol, running_protocol
from support.stage import INACTIVE
from support.status_lists import status_of
from support.unread import unread_change

VALID, INVALID, SUSPENDED = 0, 1, 2
_numbers = count(1)


@pytest.fixture(scope="module")
def protocol(module_database_url, tmp_path_factory) -> Iterator[Protocol]:
    """An application whose tokens carry the spelling that was asked for."""
    settings = {
        "status_lists": {"ttl_seconds": 5, "lifetime_seconds": 60},
        "tokens": {"scope_spelling": "requested", "several_resource_servers": "both"},
    }
    directory = tmp_path_factory.mktemp("ended")
    with running_protocol(directory, module_database_url, **settings) as running:
        yield running


@pytest.fixture
def place(protocol: Protocol) -> "Place":
    return Place(protocol)


class Place:
    """A resource server with two scopes, of which `a` has an alias, and a client of both."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol, self.services = protocol, protocol.services
        self.id = f"place{next(_numbers)}"
        self.a, self.alias, self.b = (f"{self.id}/{each}" for each in ("a", "a2", "b"))
        self.caller = self.make_server(self.id)
        with protocol.parties.change() as (_, session):
            for name, aliases in ((self.a, [self.alias]), (self.b, [])):
                self.services.scopes.add_scope(
                    session, actor=ACTOR, name=name, aliases=aliases, resource_server_id=self.id
                )
        self.client = protocol.new_client(allowed_scopes=[self.a, self.b], default_scopes=[self.b])

    def make_server(self, server_id: str, **values: object) -> Credentials:
        return self.protocol.parties.make_resource_server(
            server_id, properties={"status_list": True}, **values
        )

    def token(self, scope: str) -> str:
        return self.protocol.new_token(self.client, scope=scope)

    def update(self, session: Session, name: str, *aliases: str) -> None:
        self.services.scopes.update_scope(session, name, actor=ACTOR, aliases=aliases)

    def assign(self, name: str, server_id: str | None) -> None:
        with self.protocol.parties.change() as (services, session):
            services.scopes.assign(session, [name], server_id, actor=ACTOR)

    def allow(self, *scopes: str) -> None:
        with self.protocol.parties.change() as (services, session):
            services.clients.update_client(
                session, self.client.id, actor=ACTOR, allowed_scopes=scopes
            )

    def introspect(self, token: str, caller: Credentials | None = None) -> dict:
        return self.protocol.ask("introspect", caller or self.caller, token=token).json

    def find_state(self, token: str) -> tuple[bool, bool, int]:
        """Return whether it is active for its resource server and its client, and its status."""
        answers = [self.introspect(token, caller) for caller in (self.caller, self.client)]
        assert all(each == INACTIVE for each in answers if not each["active"])
        return (*(each["active"] for each in answers), status_of(self.protocol, token))


ENDED, STANDING = (False, False, INVALID), (True, True, VALID)


def become_aliases(place: Place, session: Session) -> None:
    """Have the spellings mean another scope."""
    place.update(session, place.b, place.a, place.alias)


def become_a_scope(place: Place, session: Session) -> None:
    """Have the former alias be a scope, and the former name its alias."""
    place.services.scopes.add_scope(
        session, actor=ACTOR, name=place.alias, aliases=[place.a], resource_server_id=place.id
    )


def be_imported(place: Place, session: Session) -> None:
    """Import the scope as it was."""
    scope = ScopeDefinition(place.a, "", "x", "read", (place.alias,))
    place.services.scopes.import_catalogue(session, [scope], actor=ACTOR)
    place.services.scopes.assign(session, [place.a], place.id, actor=ACTOR)


def be_imported_elsewhere(place: Place, session: Session) -> None:
    """Import the spellings as aliases of another scope."""
    scope = ScopeDefinition(place.b, "", "x", "read", (place.a, place.alias))
    place.services.scopes.import_catalogue(session, [scope], actor=ACTOR)


@pytest.mark.parametrize(
    "begin", [become_aliases, become_a_scope, be_imported, be_imported_elsewhere]
)
def test_tokens_of_a_deleted_scope_end_under_each_spelling(place: Place, begin):
    """Case Q225: also if a spelling is used again, and for a process that reads of it later."""
    tokens = [place.token(each) for each in (place.a, place.alias, f"{place.b} {place.alias}")]
    other = place.token(place.b)
    assert [place.find_state(each) for each in tokens] == [STANDING] * 3
    with unread_change(place.services) as session:
        place.services.scopes.delete_scope(session, place.a, actor=ACTOR)
    place.protocol.clock.advance(0.2)
    tokens += [place.token(each) for each in (place.a, place.alias)]
    place.protocol.clock.advance(0.2)
    with place.protocol.parties.change() as (_, session):
        begin(place, session)
    names = {become_a_scope: [place.alias], be_imported: [place.a]}.get(begin, [])
    place.allow(place.b, *names)
    assert [place.find_state(each) for each in tokens] == [ENDED] * len(tokens)
    assert place.find_state(other) == STANDING
    place.protocol.clock.advance(1)
    assert place.find_state(place.token(place.alias)) == STANDING


def test_tokens_with_an_alias_end_when_it_is_removed(place: Place):
    """Those with the name stand; the alias of another scope does not make the others active."""
    tokens, named = [place.token(place.alias)], place.token(place.a)
    with unread_change(place.services) as session:
        place.update(session, place.a)
    place.protocol.clock.advance(0.2)
    tokens.append(place.token(place.alias))
    place.protocol.clock.advance(0.2)
    with place.protocol.parties.change() as (_, session):
        place.update(session, place.b, place.alias)
    assert [place.find_state(each) for each in tokens] == [ENDED, ENDED]
    assert place.find_state(named) == STANDING
    place.protocol.clock.advance(1)
    assert place.find_state(place.token(place.alias)) == STANDING


@pytest.mark.parametrize("successor", ["same", "another id", "an older one"])
def test_tokens_end_with_their_resource_server_after_it_lost_its_scopes(
    place: Place, successor: str
):
    """Case Q225: its scopes were taken from it before, and one token has another audience too."""
    other = Place(place.protocol)
    place.allow(place.a, place.b, other.b)
    tokens = [place.token(each) for each in (place.a, f"{other.b} {place.a}")]
    alone = place.token(other.b)
    identifier = f"https://{place.id}.example"
    place.assign(place.a, other.id)
    with place.services.database.transaction() as session:
        place.services.clients.delete_client(session, place.id, actor=ACTOR)
    place.assign(place.a, None)
    assert [place.introspect(each, place.client) for each in tokens] == [INACTIVE] * 2
    assert [status_of(place.protocol, each) for each in tokens] == [INVALID] * 2
    if successor == "an older one":
        with place.protocol.parties.change() as (services, session):
            services.clients.update_resource_server(
                session, other.id, actor=ACTOR, identifier=identifier
            )
        place.caller = other.caller
    else:
        server_id = place.id if successor == "same" else f"{place.id}-successor"
        place.caller = place.make_server(server_id, identifier=identifier)
    place.assign(place.a, place.caller.id)
    assert [place.find_state(each) for each in tokens] == [ENDED] * 2
    # A new identifier ends the tokens with the former one.
    expected = (False, INVALID) if successor == "an older one" else (True, VALID)
    found = place.introspect(alone, place.client)["active"], status_of(place.protocol, alone)
    assert found == expected
    place.protocol.clock.advance(1)
    assert place.find_state(place.token(place.a)) == STANDING


def test_a_resource_server_with_a_long_identifier_ends_its_tokens(place: Place):
    identifier = f"https://{place.id}.example/{'x' * 400}"
    with place.protocol.parties.change() as (services, session):
        services.clients.update_resource_server(
            session, place.id, actor=ACTOR, identifier=identifier
        )
    token = place.token(place.a)
    assert place.find_state(token) == STANDING
    for former in ("https://{}.example/", identifier):
        with place.protocol.parties.change() as (services, session):
            services.clients.update_resource_server(
                session, place.id, actor=ACTOR, identifier=former.format(place.id)
            )
        assert place.find_state(token) == ENDED
    explained = explain_token(place.services, token, place.client.id)
    assert (explained.cause, identifier in explained.reason) == ("cut_off", True)
