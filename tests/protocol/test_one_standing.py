"""Introspection, the status list and the verifier's reading of it judge each token alike."""

import os
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz_server.operations.revocation import revoke_tokens
from authz_server.operations.stops import lift_stop, list_stops, plan_stop, set_stop
from authz_verifier.documents import parse_key_set
from authz_verifier.status_lists import parse_status_list
from keys.jose.compact import parse_compact
from support.parties import ACTOR, Credentials
from support.protocol import Protocol, running_protocol
from support.status_lists import ISSUER, claims_of, entry_of
from support.token_exchange import ACCESS_TOKEN, SCOPES, exchange, new_gateway

#: For each database; more in `make acceptance`.
EXAMPLES = int(os.environ.get("STANDING_EXAMPLES", "8"))

VALID, INVALID, SUSPENDED = 0, 1, 2
TTL_SECONDS = 5
LINK, RESOLVE = "mapper/link", "mapper/resolve"
HELD = {"subject": [LINK, RESOLVE], "actor": [LINK, RESOLVE], "gateway": SCOPES}
TOKENS = ("plain", "both", "exchanged", "acted")


@pytest.fixture(scope="module")
def protocol(module_database_url, tmp_path_factory):
    directory = tmp_path_factory.mktemp("standing")
    lists = {"ttl_seconds": TTL_SECONDS, "lifetime_seconds": 60}
    with running_protocol(directory, module_database_url, status_lists=lists) as running:
        with running.parties.change() as (services, session):
            services.clients.update_resource_server(
                session, "mapper", actor=ACTOR, properties={"status_list": True}
            )
        yield running


clients = st.sampled_from(sorted(HELD))
scopes = st.sampled_from([LINK, RESOLVE])


OBJECTS = {
    "token": st.sampled_from(TOKENS),
    "client": clients,
    "scope": scopes,
    "scope of client": st.tuples(clients, scopes),
    "resource-server": st.just("mapper"),
    "key": st.just(""),
    "all": st.just(""),
}


def change(verb: str, kind: str):
    """Return a strategy of changes: a verb, the kind of its object, and the object."""
    return st.tuples(st.just(verb), st.just(kind), OBJECTS[kind])


changes_of_state = st.one_of(
    change("revoke", "token"),
    *(change("cut off", kind) for kind in ("client", "scope", "key", "all")),
    *(change("stop", kind) for kind in ("client", "scope", "resource-server")),
    *(change(verb, "client") for verb in ("disable", "delete", "replace", "confine")),
    change("withdraw", "scope of client"),
)


class Scene(NamedTuple):
    """Clients, and tokens of each kind, which no earlier example has touched."""

    protocol: Protocol
    clients: dict[str, Credentials]
    tokens: dict[str, str]

    def exists(self, name: str) -> bool:
        """Return whether the client was not deleted."""
        return self.protocol.services.directory.find(self.clients[name].id) is not None

    def change(self, name: str, act: str, **values: object) -> None:
        """Change a client, unless it was deleted."""
        if self.exists(name):
            with self.protocol.parties.change() as (services, session):
                change = getattr(services.clients, act)
                change(session, self.clients[name].id, actor=ACTOR, **values)

    def name(self, kind: str, of: Any) -> str:
        """Return the name of an object in stops and cut-offs."""
        if kind == "client":
            return self.clients[of].id
        return parse_compact(self.tokens["plain"]).header["kid"] if kind == "key" else of


def new_scene(protocol: Protocol) -> Scene:
    """Make clients and tokens."""
    subject = protocol.new_client(allowed_scopes=HELD["subject"])
    actor = protocol.new_client(allowed_scopes=HELD["actor"])
    gateway = new_gateway(protocol, actors=[actor.id])
    both = protocol.new_token(subject, scope=f"{LINK} {RESOLVE}")
    acting = {"actor_token": protocol.new_token(actor), "actor_token_type": ACCESS_TOKEN}
    answers = {"exchanged": exchange(protocol, gateway, both, scope=f"{LINK} {RESOLVE}")}
    answers["acted"] = exchange(protocol, gateway, protocol.new_token(subject), **acting)
    tokens = {name: answer.json["access_token"] for name, answer in answers.items()}
    tokens |= {"plain": protocol.new_token(subject), "both": both}
    return Scene(protocol, {"subject": subject, "actor": actor, "gateway": gateway}, tokens)


def perform(scene: Scene, verb: str, kind: str, of: Any) -> None:
    """Make one change of the state."""
    protocol, services = scene.protocol, scene.protocol.services
    if verb in {"cut off", "stop"} and kind == "client" and not scene.exists(of):
        return
    if verb == "revoke":
        owner = "subject" if of in {"plain", "both"} else "gateway"
        protocol.ask("revoke", scene.clients[owner], token=scene.tokens[of])
    elif verb == "cut off":
        revoke_tokens(services, kind, scene.name(kind, of), actor=ACTOR, before=protocol.clock())
    elif verb == "stop":
        plan = plan_stop(services, kind, scene.name(kind, of))
        set_stop(services, plan, reason="INC-1", actor=ACTOR)
    elif verb == "disable":
        scene.change(of, "set_enabled", enabled=False)
    elif verb == "confine":
        scene.change(of, "update_client", allowed_resource_servers=["disburse"])
    elif verb == "withdraw":
        name, scope = of
        left = [each for each in HELD[name] if each != scope]
        scene.change(name, "update_client", allowed_scopes=left, default_scopes=[])
    else:
        scene.change(of, "delete_client")
        if verb == "replace":
            protocol.clock.advance(60)
            protocol.parties.make_client(scene.clients[of].id, allowed_scopes=HELD[of])
    services.feed.poll()


def restore(scene: Scene, performed: list) -> None:
    """Take back each change that can be taken back."""
    services = scene.protocol.services
    for verb, kind, of in performed:
        subject = scene.name(kind, of)
        if verb == "stop" and any(subject == stop.subject for stop in list_stops(services)):
            lift_stop(services, kind, subject, reason="over", actor=ACTOR)
    for name, held in HELD.items():
        scene.change(name, "set_enabled", enabled=True)
        scene.change(name, "update_client", allowed_scopes=held, allowed_resource_servers=[])
    services.feed.poll()


def judge(scene: Scene) -> dict[str, int]:
    """Return the status of each token, which introspection and the verifier confirm."""
    protocol = scene.protocol
    # A single revocation of a token that another was exchanged from is in the list by then.
    protocol.clock.advance(TTL_SECONDS + 1)
    keys = parse_key_set(protocol.get("/.well-known/jwks.json").data)
    statuses = {}
    for name, token in scene.tokens.items():
        entry = entry_of(token)
        uri = f"{ISSUER}/status-lists/{entry.list_id}"
        data = protocol.get(f"/status-lists/{entry.list_id}").data
        now = protocol.clock().timestamp()
        read = parse_status_list(data, uri, ISSUER, keys, frozenset({"ES256"}), now)
        status = statuses[name] = read.find(entry.position)
        seen = protocol.ask("introspect", protocol.demo.mapper, token=token).json
        all_scopes = set(claims_of(token)["scope"].split(" "))
        whole = seen["active"] and set(seen["scope"].split(" ")) == all_scopes
        assert whole == (status == VALID), (name, status, seen)
        assert not (seen["active"] and status == INVALID), (name, seen)
    return statuses


@given(changes=st.lists(changes_of_state, max_size=4, unique=True))
@settings(max_examples=EXAMPLES, deadline=None)
def test_the_list_and_introspection_judge_each_token_alike(protocol: Protocol, changes: list):
    """Valid: with all its scopes; suspended: valid once the changes are taken back."""
    scene = new_scene(protocol)
    try:
        for each in changes:
            perform(scene, *each)
        before = judge(scene)
    finally:
        restore(scene, changes)
    after = judge(scene)
    assert after == {name: INVALID if each == INVALID else VALID for name, each in before.items()}
