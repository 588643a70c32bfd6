"""A client never gets more than it was granted, in generated catalogues and registrations."""

from datetime import UTC, datetime
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_server.clients.cache import ClientEntry, ResourceServerEntry
from authz_server.errors import OAuthError
from authz_server.scopes.catalogue import ScopeEntry
from authz_server.settings import TokenSettings
from authz_server.tokens.authorization import MAXIMUM_RESOURCES, AuthorizationRules
from authz_server.tokens.authorization_details import DetailRules

GRANT = "client_credentials"
SERVERS = ("mapper", "disburse", "registry")
NAMES = tuple(f"{server}/{verb}" for server in SERVERS for verb in ("link", "unlink", "search"))
ALIASES = {name.replace("/", "."): name for name in NAMES} | {"link": "mapper/link"}
OWNERLESS = "nobody/link"
REFUSALS = {
    "scope_missing",
    "scope_not_granted",
    "scope_too_long",
    "scope_several_resource_servers",
    "resource_invalid",
}


def entry(client_id, **members):
    usual = {
        "kind": "client",
        "enabled": True,
        "created_at": 0.0,
        "starts_at": 0.0,
        "expires_at": float("inf"),
        "authentication_method": "client_secret_post",
        "grant_types": frozenset({GRANT}),
        "allowed_scopes": frozenset(),
        "default_scopes": (),
        "allowed_resource_servers": frozenset(),
        "permissions": frozenset(),
        "token_lifetime_seconds": None,
        "g2p_answer": "document",
        "secrets": (),
        "resource_server": None,
    }
    return ClientEntry(id=client_id, **usual | members)


def server(name, **members):
    about = {"identifier": f"https://{name}.example", "token_format": "jwt", "signing_ring": None}
    enabled = members.pop("enabled", True)
    return entry(name, enabled=enabled, resource_server=ResourceServerEntry(**about | members))


class AuthorizationFixture:
    """Clients, resource servers and scopes in dictionaries, with the rules over them."""

    def __init__(self, client, servers, caps, **settings):
        self.client = client
        self.clients = {each.id: each for each in [client, *servers]}
        self.scopes = {
            name: ScopeEntry(name, name.partition("/")[0], caps.get(name)) for name in NAMES
        }
        self.scopes[OWNERLESS] = ScopeEntry(OWNERLESS, None, None)
        self.settings = TokenSettings(**settings)
        catalogue = SimpleNamespace(find=self.find_scope)
        directory = SimpleNamespace(find=self.clients.get, find_resource_server=self.find_server)
        details = DetailRules({}, directory, catalogue, lambda: datetime.now(UTC))
        self.rules = AuthorizationRules(directory, catalogue, self.settings, details)

    def find_scope(self, spelling):
        return self.scopes.get(ALIASES.get(spelling, spelling))

    def find_server(self, identifier):
        servers = [each for each in self.clients.values() if each.resource_server]
        return next(
            (each for each in servers if each.resource_server.identifier == identifier), None
        )

    def decide(self, scope=None, resources=()):
        return self.rules.decide(self.client, GRANT, scope, tuple(resources))

    def refusal(self, scope=None, resources=()):
        with pytest.raises(OAuthError) as refused:
            self.decide(scope, resources)
        return refused.value.reason


@st.composite
def worlds(draw):
    client = entry(
        "ministry",
        allowed_scopes=draw(st.frozensets(st.sampled_from([*NAMES, OWNERLESS]))),
        default_scopes=draw(st.lists(st.sampled_from(NAMES), max_size=3, unique=True).map(tuple)),
        allowed_resource_servers=draw(st.frozensets(st.sampled_from(SERVERS))),
        token_lifetime_seconds=draw(st.one_of(st.none(), st.integers(1, 3_600))),
    )
    servers = [
        server(
            name,
            enabled=draw(st.booleans()) or draw(st.booleans()),
            token_format=draw(st.sampled_from(["jwt", "jwt", "reference"])),
            signing_ring=draw(st.sampled_from([None, None, "rs256"])),
        )
        for name in SERVERS
    ]
    return AuthorizationFixture(
        client,
        servers,
        draw(st.dictionaries(st.sampled_from(NAMES), st.integers(1, 3_600))),
        several_resource_servers=draw(st.sampled_from(["refuse", "both"])),
        scope_spelling=draw(st.sampled_from(["canonical", "requested"])),
    )


spellings = st.sampled_from([*NAMES, *ALIASES, OWNERLESS, "", "*", "MAPPER/LINK", "mapper/link\t"])
scopes = st.one_of(st.none(), st.lists(spellings, max_size=4).map(" ".join), st.text(max_size=30))
resources = st.lists(
    st.sampled_from([*(f"https://{name}.example" for name in SERVERS), "https://other.example"]),
    max_size=2,
)


@given(world=worlds(), scope=scopes, named=resources)
def test_what_is_authorized_was_granted(world, scope, named):
    """Case B20, B21, B24, B25, B26, C31"""
    try:
        found = world.decide(scope, named)
    except OAuthError as refusal:
        reason = refusal.reason
    else:
        reason = ""
    if reason:
        assert reason in REFUSALS
        return
    client = world.client
    assert found.scopes
    assert len(set(found.scopes)) == len(found.scopes)
    assert set(found.scopes) <= client.allowed_scopes
    asked = (scope or "").split()
    granted = [world.find_scope(each).name for each in asked] or client.default_scopes
    assert set(found.scopes) <= set(granted)
    assert not asked or set(found.scopes) == set(granted)
    owners = [world.clients[world.scopes[name].resource_server_id] for name in found.scopes]
    assert found.audience == tuple(
        dict.fromkeys(owner.resource_server.identifier for owner in owners)
    )
    assert all(owner.enabled for owner in owners)
    assert {owner.resource_server.token_format for owner in owners} == {found.token_format}
    assert {owner.resource_server.signing_ring or "" for owner in owners} == {found.ring}
    reachable = client.allowed_resource_servers
    assert not reachable or {owner.id for owner in owners} <= reachable
    assert not named or set(found.audience) <= set(named)
    assert len(found.audience) == 1 or world.settings.several_resource_servers == "both"


@given(world=worlds(), scope=scopes)
def test_lifetime_is_the_shortest_that_anything_says(world, scope):
    """Case B27"""
    try:
        found = world.decide(scope)
    except OAuthError:
        return
    caps = [world.scopes[name].lifetime_cap_seconds for name in found.scopes]
    own = world.client.token_lifetime_seconds or world.settings.default_lifetime_seconds
    limits = [own, world.settings.maximum_lifetime_seconds, *filter(None, caps)]
    assert found.lifetime_seconds == min(limits)


@given(world=worlds(), scope=scopes, named=resources)
def test_the_second_answer_is_the_first(world, scope, named):
    answers = []
    for _ in range(2):
        try:
            answers.append(world.decide(scope, named))
        except OAuthError as refusal:
            answers.append(refusal.reason)
    assert answers[0] == answers[1]


@given(world=worlds(), names=st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
def test_every_client_gets_what_nothing_forbids(world, names):
    """The other side of refusing: whatever is in order is granted."""
    one = names[0].partition("/")[0]
    names = [name for name in names if name.startswith(one)]
    world.clients[one] = server(one)
    world.client = msgspec.structs.replace(
        world.client, allowed_scopes=frozenset(names), allowed_resource_servers=frozenset({one})
    )
    found = world.decide(" ".join(names), [f"https://{one}.example"])
    assert found.scopes == tuple(names)


@pytest.fixture
def world():
    client = entry(
        "ministry", allowed_scopes=frozenset(NAMES), default_scopes=("mapper/link", "mapper/unlink")
    )
    return AuthorizationFixture(client, [server(name) for name in SERVERS], {})


@pytest.mark.parametrize("scope", [None, "", " ", "   "])
def test_without_scope_the_defaults_are_stated(world, scope):
    """Case B21"""
    assert world.decide(scope).scope == "mapper/link mapper/unlink"


@pytest.mark.parametrize(
    ("spelling", "scope"),
    [("canonical", "mapper/link mapper/unlink"), ("requested", "mapper.link mapper/unlink")],
)
def test_a_scope_is_called_by_the_spelling_of_the_settings(spelling, scope):
    client = entry("ministry", allowed_scopes=frozenset(NAMES))
    world = AuthorizationFixture(client, [server("mapper")], {}, scope_spelling=spelling)
    found = world.decide("mapper.link mapper/unlink mapper/link")
    assert found.scope == scope
    assert found.scopes == ("mapper/link", "mapper/unlink")


def test_one_scope_two_thousand_times_is_refused_or_one_scope(world):
    """Case B25"""
    assert world.refusal("mapper/link " * 2_000) == "scope_too_long"
    assert world.decide("mapper/link " * 300).scope == "mapper/link"


@pytest.mark.parametrize("several", ["refuse", "both"])
def test_scopes_of_two_resource_servers_follow_the_written_rule(several):
    """Case C31"""
    client = entry("ministry", allowed_scopes=frozenset(NAMES))
    servers = [server(name) for name in SERVERS]
    world = AuthorizationFixture(client, servers, {}, several_resource_servers=several)
    if several == "refuse":
        assert world.refusal("mapper/link disburse/link") == "scope_several_resource_servers"
        return
    found = world.decide("mapper/link disburse/link")
    assert found.audience == ("https://mapper.example", "https://disburse.example")


@pytest.mark.parametrize("difference", [{"token_format": "reference"}, {"signing_ring": "rs256"}])
def test_one_token_cannot_be_of_two_kinds(difference):
    """Case C31"""
    client = entry("ministry", allowed_scopes=frozenset(NAMES))
    servers = [server("mapper"), server("disburse", **difference)]
    world = AuthorizationFixture(client, servers, {}, several_resource_servers="both")
    assert world.refusal("mapper/link disburse/link") == "scope_several_resource_servers"


def test_too_many_resources_are_refused(world):
    """Case B26"""
    same = ["https://mapper.example"]
    assert world.decide("mapper/link", same * MAXIMUM_RESOURCES).scope == "mapper/link"
    assert world.refusal("mapper/link", same * (MAXIMUM_RESOURCES + 1)) == "resource_invalid"


def test_a_withdrawn_scope_is_gone_once_decisions_are_forgotten(world):
    """Case A15"""
    assert world.decide("mapper/link").scope == "mapper/link"
    world.client = msgspec.structs.replace(world.client, allowed_scopes=frozenset())
    world.clients["ministry"] = world.client
    world.rules.forget()
    assert world.refusal("mapper/link") == "scope_not_granted"


def test_what_was_decided_while_something_changed_is_not_kept(world):
    """Case A15"""
    find, withdrawn = world.find_scope, []

    def withdraw(spelling):
        if not withdrawn:
            withdrawn.append(spelling)
            world.clients["ministry"] = msgspec.structs.replace(
                world.client, allowed_scopes=frozenset()
            )
            world.rules.forget()
        return find(spelling)

    world.rules._catalogue.find = withdraw  # noqa: SLF001 - the catalogue is this test's own
    world.decide("mapper/link")
    world.client = world.clients["ministry"]
    assert world.refusal("mapper/link") == "scope_not_granted"


def test_what_is_decided_for_a_client_that_changed_before_is_not_kept(world):
    """Case A15. A request was authenticated before the change, and is decided after it."""
    authenticated = world.client
    changed = msgspec.structs.replace(authenticated, allowed_scopes=frozenset())
    world.clients["ministry"] = changed
    world.rules.forget()
    world.decide("mapper/link")
    world.client = changed
    assert world.refusal("mapper/link") == "scope_not_granted"


def test_memory_of_decisions_does_not_grow_without_end(world):
    """Case D40"""
    for number in range(10_000):
        world.decide(f"{' ' * (number % 3_000)}mapper/link{' ' * (number // 3_000)}")
    assert len(world.rules._decided) <= 8_192  # noqa: SLF001 - nothing else shows it
