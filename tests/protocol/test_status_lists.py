"""Status lists (draft-ietf-oauth-status-list): entries of tokens, and what ends them."""

import json
from collections import Counter
from datetime import timedelta
from itertools import count

import pytest
from sqlalchemy import delete, event, func, select

from authz_server.operations.key_names import find_kid
from authz_server.operations.revocation import revoke_tokens
from authz_server.operations.stops import lift_stop, plan_stop, set_stop
from authz_server.operations.tokens import revoke_token_by_id
from authz_server.tokens.models import RevocationCutOff
from authz_server.tokens.status_lists.contents import fill_statuses
from authz_server.tokens.status_lists.entries import LIST_SIZE, Entry, add_entry, find_entry
from authz_server.tokens.status_lists.models import StatusBlock, StatusList
from authz_server.tokens.status_lists.publication import STATUS_LIST_TYPE
from keys.jose.compact import parse_compact
from support.parties import ACTOR
from support.protocol import METHODS, TOKEN_ENDPOINTS, Protocol, running_protocol
from support.status_lists import ISSUER, claims_of, entry_of, fetch_list, status_of
from support.token_exchange import GRANT_TYPE, exchange, new_gateway

VALID, INVALID, SUSPENDED = 0, 1, 2
_names = count(1)


@pytest.fixture(scope="module")
def protocol(module_database_url, tmp_path_factory):
    """An application whose mapper wants status lists; signatures differ, so without a twin."""
    directory = tmp_path_factory.mktemp("status")
    settings = {"status_lists": {"ttl_seconds": 5, "lifetime_seconds": 60}}
    with running_protocol(directory, module_database_url, **settings) as running:
        with running.parties.change() as (services, session):
            services.clients.update_resource_server(
                session, "mapper", actor=ACTOR, properties={"status_list": True}
            )
        yield running


def count_rows(protocol: Protocol, table) -> int:
    with protocol.services.database.reading() as session:
        return session.scalar(select(func.count()).select_from(table))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", TOKEN_ENDPOINTS)
def test_a_token_has_an_entry_in_a_list(protocol: Protocol, endpoint: str, method: str):
    """6.1; the `jti` encodes it, too."""
    client = protocol.new_client(method)
    token = protocol.ask(endpoint, client).json["access_token"]
    entry, claims = entry_of(token), claims_of(token)
    assert 0 <= entry.position < LIST_SIZE
    assert find_entry(claims["jti"]) == entry
    assert status_of(protocol, token) == VALID
    assert protocol.is_active(token)


def test_a_list_is_a_signed_token(protocol: Protocol):
    """5.1: `typ`, `sub`, `iat`, `exp`, `ttl`, two bits; by a published key of the ring."""
    token = protocol.new_token()
    list_id, _ = entry_of(token)
    answer = protocol.get(f"/status-lists/{list_id}", Accept="application/statuslist+jwt")
    assert answer.content_type == "application/statuslist+jwt"
    assert answer.headers["Cache-Control"] == "public, max-age=5"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    parsed = parse_compact(answer.text)
    header, claims = parsed.header, json.loads(parsed.payload)
    assert (header["typ"], STATUS_LIST_TYPE) == ("statuslist+jwt", "statuslist+jwt")
    assert header["kid"] in {
        key["kid"] for key in protocol.get("/.well-known/jwks.json").json["keys"]
    }
    now = int(protocol.clock().timestamp())
    assert claims["sub"] == f"{ISSUER}/status-lists/{list_id}"
    assert claims["iat"] <= now < claims["exp"] <= now + 60
    assert (claims["iss"], claims["ttl"], claims["status_list"]["bits"]) == (ISSUER, 5, 2)
    assert len(fetch_list(protocol, list_id)[1]) == LIST_SIZE // 4


def test_a_list_is_not_an_access_token(protocol: Protocol):
    """Introspection does not take it for one, for any caller and method."""
    text = protocol.get(f"/status-lists/{entry_of(protocol.new_token()).list_id}").text
    for method in METHODS:
        client = protocol.new_client(method)
        assert protocol.ask("introspect", client, token=text).json == {"active": False}


def test_an_unchanged_list_is_304(protocol: Protocol):
    """A revocation changes the entity tag at once; a request that names the old one gets all."""
    client = protocol.new_client()
    token = protocol.new_token(client)
    path = f"/status-lists/{entry_of(token).list_id}"
    first = protocol.get(path)
    etag = first.headers["ETag"]
    assert protocol.get(path).data == first.data
    unchanged = protocol.get(path, If_None_Match=etag)
    assert (unchanged.status_code, unchanged.data) == (304, b"")
    assert protocol.ask("revoke", client, token=token).status_code == 200
    changed = protocol.get(path, If_None_Match=etag)
    assert changed.status_code == 200
    assert changed.headers["ETag"] != etag


def test_a_list_is_signed_anew_before_it_expires(protocol: Protocol):
    """`exp` is always at least half of `lifetime_seconds` away."""
    path = f"/status-lists/{entry_of(protocol.new_token()).list_id}"
    for _ in range(6):
        claims = json.loads(parse_compact(protocol.get(path).text).payload)
        assert claims["exp"] - protocol.clock().timestamp() >= 30
        protocol.clock.advance(10)


def test_the_metadata_names_the_list_of_lists(protocol: Protocol):
    """9.1 and 9.3."""
    token = protocol.new_token()
    metadata = protocol.get("/.well-known/oauth-authorization-server").json
    assert metadata["status_list_aggregation_endpoint"] == f"{ISSUER}/status-lists"
    answer = protocol.get("/status-lists")
    assert answer.content_type == "application/json"
    assert claims_of(token)["status"]["status_list"]["uri"] in answer.json["status_lists"]


def test_others_have_no_entry(protocol: Protocol):
    """A resource server without the property; its tokens cost no row."""
    before = count_rows(protocol, StatusBlock)
    client = protocol.new_client(
        allowed_scopes=["disburse/disburse"], default_scopes=["disburse/disburse"]
    )
    token = protocol.new_token(client, scope="disburse/disburse")
    assert "status" not in claims_of(token)
    assert find_entry(claims_of(token)["jti"]) is None
    assert count_rows(protocol, StatusBlock) == before


def test_many_tokens_share_few_rows_and_no_index(protocol: Protocol):
    """Blocks of 4, 16, 64 ...: 300 tokens of a client take five rows; the indexes are mixed."""
    client = protocol.new_client()
    before = count_rows(protocol, StatusBlock)
    entries = [entry_of(protocol.new_token(client)) for _ in range(300)]
    assert max(Counter(entries).values()) == 1
    assert count_rows(protocol, StatusBlock) - before <= 6
    indexes = [each.position for each in entries]
    assert indexes != sorted(indexes)


@pytest.mark.parametrize("method", METHODS)
def test_a_revoked_token_is_invalid_in_its_list(protocol: Protocol, method: str):
    """At once; its neighbours of the same block stay valid."""
    client = protocol.new_client(method)
    tokens = [protocol.new_token(client) for _ in range(4)]
    assert protocol.ask("revoke", client, token=tokens[1]).status_code == 200
    assert [status_of(protocol, each) for each in tokens] == [VALID, INVALID, VALID, VALID]


def test_a_token_revoked_by_its_id_is_invalid_in_its_list(protocol: Protocol):
    """The operator has only the `jti` of the audit record; a made-up one changes nothing."""
    token = protocol.new_token()
    jti = claims_of(token)["jti"]
    list_id = entry_of(token).list_id
    invented = add_entry("A" * 32, Entry(2**40, 5))
    assert revoke_token_by_id(protocol.services, invented, actor=ACTOR).changed
    revoke_token_by_id(protocol.services, jti, actor=ACTOR)
    assert status_of(protocol, token) == INVALID
    assert fetch_list(protocol, list_id)


@pytest.mark.parametrize("kind", ["client", "scope", "key", "all"])
def test_a_cut_off_makes_invalid_what_was_issued_before(protocol: Protocol, kind: str):
    """Tokens of the same client that are issued later are valid; others are as they were."""
    services = protocol.services
    client = protocol.new_client(
        allowed_scopes=["mapper/resolve"], default_scopes=["mapper/resolve"]
    )
    other = protocol.new_client(allowed_scopes=["mapper/link"], default_scopes=["mapper/link"])
    token = protocol.new_token(client, scope="mapper/resolve")
    others = protocol.new_token(other, scope="mapper/link")
    kid = parse_compact(token).header["kid"]
    subject = {"client": client.id, "scope": "mapper/resolve", "key": kid, "all": ""}[kind]
    if kind == "key":
        assert find_kid(services.key_store.load_rings(protocol.clock()), kid) == kid
    # The database's time; that of the application is ahead of it.
    before = protocol.clock()
    revoke_tokens(services, kind, subject, actor=ACTOR, before=before)
    services.feed.poll()
    assert status_of(protocol, token) == INVALID
    assert status_of(protocol, others) == (VALID if kind in {"client", "scope"} else INVALID)
    protocol.clock.advance(1)
    later = protocol.new_token(client, scope="mapper/resolve")
    assert status_of(protocol, later) == VALID


@pytest.mark.parametrize("kind", ["scope", "client", "resource-server"])
def test_a_stop_suspends_tokens_until_it_is_lifted(protocol: Protocol, kind: str):
    """A revoked token stays invalid meanwhile and afterwards."""
    services = protocol.services
    client = protocol.new_client()
    token, revoked = protocol.new_token(client), protocol.new_token(client)
    protocol.ask("revoke", client, token=revoked)
    subject = {"scope": "mapper/link", "client": client.id, "resource-server": "mapper"}[kind]
    set_stop(services, plan_stop(services, kind, subject), reason="INC-1", actor=ACTOR)
    assert status_of(protocol, token) == SUSPENDED
    assert status_of(protocol, revoked) == INVALID
    lift_stop(services, kind, subject, reason="over", actor=ACTOR)
    assert status_of(protocol, token) == VALID
    assert status_of(protocol, revoked) == INVALID


def test_a_disabled_client_has_suspended_tokens_and_a_deleted_one_invalid_ones(protocol: Protocol):
    """A withdrawn scope suspends the token as a whole."""
    client = protocol.new_client()
    both = protocol.new_token(client, scope="mapper/link mapper/resolve")
    token = protocol.new_token(client)

    def change(**values: object) -> None:
        with protocol.parties.change() as (services, session):
            services.clients.update_client(session, client.id, actor=ACTOR, **values)

    change(allowed_scopes=["mapper/link"])
    assert (status_of(protocol, both), status_of(protocol, token)) == (SUSPENDED, VALID)
    change(allowed_scopes=["mapper/link", "mapper/resolve"])
    assert status_of(protocol, both) == VALID
    for enabled, status in ((False, SUSPENDED), (True, VALID)):
        with protocol.parties.change() as (services, session):
            services.clients.set_enabled(session, client.id, actor=ACTOR, enabled=enabled)
        assert status_of(protocol, token) == status
    with protocol.parties.change() as (services, session):
        services.clients.delete_client(session, client.id, actor=ACTOR)
    assert (status_of(protocol, both), status_of(protocol, token)) == (INVALID, INVALID)
    protocol.parties.make_client(client.id)
    assert status_of(protocol, token) == INVALID


def test_a_scope_that_another_resource_server_takes_suspends_its_tokens(protocol: Protocol):
    """As at introspection, where the former owner sees the scope no more."""
    token = protocol.new_token(protocol.new_client(), scope="mapper/link")
    for owner, status in ((None, SUSPENDED), ("disburse", SUSPENDED), ("mapper", VALID)):
        with protocol.parties.change() as (services, session):
            services.scopes.assign(session, ["mapper/link"], owner, actor=ACTOR)
        assert status_of(protocol, token) == status
        described = protocol.ask("introspect", protocol.demo.mapper, token=token).json
        assert described["active"] is (status == VALID)


def test_a_client_that_expires_has_suspended_tokens_within_the_ttl(protocol: Protocol):
    """Nothing is committed at that time."""
    client = protocol.new_client(expires_at=protocol.clock() + timedelta(seconds=30))
    token = protocol.new_token(client)
    assert status_of(protocol, token) == VALID
    protocol.clock.advance(36)
    assert status_of(protocol, token) == SUSPENDED


def test_a_token_of_an_exchange_ends_with_the_one_it_came_from(protocol: Protocol):
    """Revoked by itself, within the ttl; by a cut-off of its client, at once."""
    client, gateway = protocol.new_client(), new_gateway(protocol)
    tokens = [protocol.new_token(client) for _ in range(2)]
    exchanged = [exchange(protocol, gateway, each).json["access_token"] for each in tokens]
    assert [status_of(protocol, each) for each in exchanged] == [VALID, VALID]
    protocol.ask("revoke", client, token=tokens[0])
    protocol.clock.advance(6)
    assert [status_of(protocol, each) for each in exchanged] == [INVALID, VALID]
    with protocol.parties.change() as (services, session):
        services.clients.set_enabled(session, client.id, actor=ACTOR, enabled=False)
    assert [status_of(protocol, each) for each in exchanged] == [INVALID, SUSPENDED]


def test_a_token_of_an_exchange_needs_the_scopes_and_the_client_of_the_one_it_came_from(
    protocol: Protocol,
):
    """A withdrawn scope suspends it; a client of the same id that was created later ends it."""
    client, gateway = protocol.new_client(), new_gateway(protocol)
    presented = protocol.new_token(client)
    token = exchange(protocol, gateway, presented).json["access_token"]
    others = ["disburse/disburse"]
    with protocol.parties.change() as (services, session):
        services.clients.update_client(
            session, client.id, actor=ACTOR, allowed_scopes=others, default_scopes=others
        )
    assert status_of(protocol, token) == SUSPENDED
    with protocol.parties.change() as (services, session):
        services.clients.delete_client(session, client.id, actor=ACTOR)
    with protocol.services.database.transaction() as session:
        # The cut-off of the deletion ends it as well.
        session.execute(delete(RevocationCutOff).where(RevocationCutOff.subject == client.id))
    protocol.clock.advance(60)
    protocol.parties.make_client(client.id)
    assert status_of(protocol, token) == INVALID


def test_a_token_whose_details_were_withdrawn_is_suspended(protocol: Protocol):
    """RFC 9396: as it is inactive at introspection; a token of an exchange as well."""
    kind, scope = "g2p_disbursement", "disburse/disburse"
    grant = {
        "programmes": ["a"],
        "currency_code": "KES",
        "payer_fas": ["account:1@bank"],
        "payment_cap": "10.00",
        "batch_cap": "100.00",
        "count": 10,
    }
    with protocol.parties.change() as (services, session):
        services.clients.update_resource_server(
            session, "disburse", actor=ACTOR, properties={"status_list": True}
        )
    client = protocol.new_client(
        allowed_scopes=[scope],
        default_scopes=[],
        properties={"authorization_details_grants": {kind: [grant]}},
    )
    gateway = protocol.new_client(
        allowed_scopes=[scope],
        default_scopes=[],
        grant_types=[GRANT_TYPE],
        properties={"token_exchange": {"subjects": [client.id], "audiences": ["disburse"]}},
    )
    asked = json.dumps([{"type": kind, "programme": "a", "currency_code": "KES"}])
    answer = protocol.ask("token", client, without="scope", authorization_details=asked)
    token = answer.json["access_token"]
    exchanged = exchange(protocol, gateway, token).json["access_token"]
    assert [status_of(protocol, each) for each in (token, exchanged)] == [VALID, VALID]
    for payments, status in ((9, SUSPENDED), (10, VALID)):
        grants = {"authorization_details_grants": {kind: [grant | {"count": payments}]}}
        with protocol.parties.change() as (services, session):
            services.clients.update_client(session, client.id, actor=ACTOR, properties=grants)
        assert [status_of(protocol, each) for each in (token, exchanged)] == [status, status]
    with protocol.parties.change() as (services, session):
        services.clients.update_resource_server(
            session, "disburse", actor=ACTOR, properties={"status_list": False}
        )


def test_exchanged_tokens_cost_one_query_and_no_memory(protocol: Protocol):
    """Each has origins of its own, so that its block is not used again."""
    client, gateway = protocol.new_client(), new_gateway(protocol)
    presented = [protocol.new_token(client) for _ in range(5)]
    tokens = [exchange(protocol, gateway, each).json["access_token"] for each in presented]
    blocks = protocol.services.issuer._status_indexes._blocks  # noqa: SLF001 - the memory
    assert [key for key in blocks if key.origins] == []
    queries = []
    with protocol.services.database.reading() as session:
        event.listen(session, "do_orm_execute", queries.append)
        fill_statuses(protocol.services.standing, session, entry_of(tokens[0]).list_id, "mapper")
    assert len(queries) <= 2


def test_a_rotated_key_gets_blocks_of_its_own(protocol: Protocol):
    """A cut-off of the old key leaves the tokens of the new one valid."""
    client = protocol.new_client()
    old = protocol.new_token(client)
    issuer = protocol.services.issuer
    # The state of a process that has just seen a rotation: the last key is not the present one.
    for ring in list(issuer._kids):  # noqa: SLF001 - a rotation takes a day
        issuer._kids[ring] = "rotated-away"  # noqa: SLF001
    new = protocol.new_token(client)
    with protocol.services.database.reading() as session:
        kids = session.scalars(
            select(StatusBlock.kid).where(StatusBlock.client_id == client.id)
        ).all()
    assert "rotated-away" in kids
    revoke_tokens(protocol.services, "client", "mapper", actor=ACTOR)
    assert (status_of(protocol, old), status_of(protocol, new)) == (VALID, VALID)


def test_expired_lists_are_purged(protocol: Protocol):
    """With their blocks and revocations; a list whose tokens live stays."""
    client = protocol.new_client()
    old = protocol.new_token(client)
    protocol.ask("revoke", client, token=old)
    protocol.clock.advance(3_600)
    new = protocol.new_token(client)
    protocol.services.purge.run()
    assert protocol.get(f"/status-lists/{entry_of(old).list_id}").status_code == 404
    assert status_of(protocol, new) == VALID
    with protocol.services.database.reading() as session:
        lists = set(session.scalars(select(StatusList.id)))
        assert set(session.scalars(select(StatusBlock.list_id))) <= lists


def test_a_full_list_is_followed_by_another(protocol: Protocol):
    """No token is refused for it."""
    first = entry_of(protocol.new_token())
    with protocol.services.database.transaction() as session:
        session.get(StatusList, first.list_id).next_index = LIST_SIZE
    client = protocol.new_client()
    second = entry_of(protocol.new_token(client))
    assert second.list_id != first.list_id
