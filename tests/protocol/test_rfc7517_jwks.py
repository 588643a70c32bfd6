"""The published keys (RFC 7517)."""

import time

import pytest

from authz_server.app import EXTENSION, create_app
from authz_server.key_rings.consumers import MAXIMUM_READERS, load_jwks_readers
from authz_server.operations.keys.first_keys import create_missing_keys
from support.claims import header_of
from support.protocol import Protocol
from support.settings_file import ISSUER

JWKS = "/.well-known/jwks.json"
PUBLIC_MEMBERS = {
    "EC": {"kty", "kid", "use", "alg", "crv", "x", "y"},
    "RSA": {"kty", "kid", "use", "alg", "n", "e"},
    "OKP": {"kty", "kid", "use", "alg", "crv", "x"},
}


def test_public_members_only(start_protocol):
    """Case G74."""
    names = {"es256": "ES256", "rs256": "RS256", "eddsa": "EdDSA"}
    rings = {name: {"algorithm": algorithm} for name, algorithm in names.items()}
    protocol = start_protocol(keys={"rings": rings})
    answer = protocol.get(JWKS)
    assert answer.content_type == "application/jwk-set+json"
    assert answer.json.keys() == {"keys"}
    keys = answer.json["keys"]
    assert {key["alg"] for key in keys} == set(names.values())
    assert {key["use"] for key in keys} == {"sig"}
    for key in keys:
        assert key.keys() == PUBLIC_MEMBERS[key["kty"]]
    assert len({key["kid"] for key in keys}) == len(keys)


def test_published_keys_hold_the_next_one_too(protocol: Protocol):
    """Case G74."""
    keys = protocol.get(JWKS).json["keys"]
    signing = header_of(protocol.new_token())["kid"]
    assert len(keys) == 2
    assert signing in {key["kid"] for key in keys}


def test_every_node_publishes_the_same(protocol: Protocol):
    """Case G74."""
    ours = protocol.get(JWKS)
    node = create_app(protocol.services.settings, clock=protocol.clock)
    try:
        theirs = node.test_client().get(JWKS, base_url=ISSUER)
        assert theirs.data == ours.data
        assert theirs.headers["ETag"] == ours.headers["ETag"]
    finally:
        node.extensions[EXTENSION].maintenance.stop()
        node.extensions[EXTENSION].database.close()
        node.extensions[EXTENSION].sink.close()


def test_caches_may_keep_the_keys_and_ask_again(start_protocol):
    """Case G74."""
    protocol = start_protocol(keys={"jwks_maximum_age_seconds": 77})
    whole = protocol.get(JWKS)
    assert whole.headers["Cache-Control"] == "public, max-age=77"
    etag = whole.headers["ETag"]
    for asked in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = protocol.get(JWKS, If_None_Match=asked)
        assert (answer.status_code, answer.data) == (304, b"")
        assert answer.headers["ETag"] == etag
        assert answer.headers["Cache-Control"] == "public, max-age=77"
    for asked in ('"other"', etag.strip('"')[:-1], ""):
        assert protocol.get(JWKS, If_None_Match=asked).data == whole.data


def test_head_is_answered_without_a_body(protocol: Protocol):
    """Case G74."""
    whole, head = protocol.get(JWKS), protocol.send("HEAD", JWKS)
    assert (head.status_code, head.data) == (200, b"")
    for name in ("ETag", "Cache-Control", "Content-Type", "Content-Length"):
        assert head.headers[name] == whole.headers[name]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_published_keys_can_only_be_read(protocol: Protocol, method: str):
    """Case G74."""
    answer = protocol.send(method, JWKS)
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD"}
    assert answer.headers["Cache-Control"] == "no-store"


def test_set_without_keys_is_not_published(sqlite_url, make_settings):
    """Case G74."""
    settings = make_settings(database={"url": sqlite_url})
    app = create_app(settings)
    services = app.extensions[EXTENSION]
    try:
        answer = app.test_client().get(JWKS)
        assert answer.status_code == 503
        assert answer.headers["Cache-Control"] == "no-store"
        assert int(answer.headers["Retry-After"]) > 0
        create_missing_keys(services, actor="operator:tester")
        services.feed.poll()
        assert len(app.test_client().get(JWKS).json["keys"]) == 2
    finally:
        services.maintenance.stop()
        services.database.close()
        services.sink.close()


def readers_of(protocol: Protocol) -> list[tuple[str, str]]:
    return [tuple(name) for name in protocol.services.jwks_readers.drain()]


def test_whoever_has_the_published_keys_is_noted(protocol: Protocol):
    """A reader that holds them already has them as much as one that is sent them."""
    readers_of(protocol)
    etag = protocol.get(JWKS, User_Agent="first").headers["ETag"]
    protocol.get(JWKS, User_Agent="second", If_None_Match=etag)
    protocol.get(JWKS, User_Agent="x" * 3_000)
    assert readers_of(protocol) == [
        ("first", "127.0.0.0/24"),
        ("second", "127.0.0.0/24"),
        ("x" * 100, "127.0.0.0/24"),
    ]


def test_whoever_has_not_is_not_noted(protocol: Protocol):
    readers_of(protocol)
    etag = protocol.get(JWKS, User_Agent="first").headers["ETag"]
    readers_of(protocol)
    protocol.send("HEAD", JWKS)
    protocol.send("POST", JWKS)
    assert protocol.get(JWKS, If_Match='"another"').status_code == 412
    protocol.get("/.well-known/openid-configuration")
    assert readers_of(protocol) == []
    assert protocol.get(JWKS, If_Match=etag).status_code == 200
    assert len(readers_of(protocol)) == 1


def test_readers_behind_a_proxy_are_known_by_their_own_network(start_protocol):
    protocol = start_protocol(server={"trusted_proxies": ["127.0.0.0/8"]})
    for forwarded in ("203.0.113.9", "evil, 203.0.113.77", "2001:db8:5:6::1, 127.0.0.3"):
        protocol.get(JWKS, User_Agent="nimbus/9", X_Forwarded_For=forwarded)
    assert readers_of(protocol) == [
        ("nimbus/9", "203.0.113.0/24"),
        ("nimbus/9", "2001:db8:5::/48"),
    ]


def test_readers_are_written_down_when_the_process_ends(start_protocol):
    protocol = start_protocol()
    protocol.get(JWKS, User_Agent="nimbus/9")
    protocol.services.maintenance.stop()
    with protocol.services.database.reading() as session:
        (row,) = load_jwks_readers(session, protocol.clock())
    assert str(row.name) == "nimbus/9 (127.0.0.0/24)"


def test_many_readers_are_noted_in_bounded_memory_and_time(protocol: Protocol):
    readers = protocol.services.jwks_readers
    started = time.process_time()
    for number in range(20_000):
        readers.note(f"agent {number}", f"192.0.{number % 250}.1")
    taken = (time.process_time() - started) / 20_000
    assert len(readers.drain()) == MAXIMUM_READERS
    assert taken < 0.001
