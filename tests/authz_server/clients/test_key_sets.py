"""The keys of clients and issuers, from their registration and from their addresses."""

import json
import time
from collections.abc import Iterator

import pytest

from authz_server.clients.fetching import Fetcher, FetchError
from authz_server.clients.issuers import Issuer
from authz_server.clients.key_sets import KeySets
from authz_server.settings import IssuerSettings, OutboundSettings
from authz_server.waiting import run
from keys.errors import TokenRefusedError
from keys.jose.foreign import parse_foreign
from support.assertions import Signer, jwks_of, new_key
from support.scripted_server import ScriptedServer, answer_with

FIRST, SECOND = new_key(), new_key()
KEEP_SECONDS = 3_600


class Publisher:
    """A server on loopback that publishes a document, and the key sets of a process."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.document = b""
        self.fetches = 0
        self.url = ""
        settings = OutboundSettings(
            allowed_networks=("127.0.0.0/8",),
            plain_http=True,
            minimum_cache_seconds=30,
            default_cache_seconds=300,
            keep_seconds=KEEP_SECONDS,
        )
        self.key_sets = KeySets(Fetcher(settings, now=lambda: self.now))

    def answer(self, connection, request) -> bool:
        self.fetches += 1
        return answer_with(self.document)(connection, request)

    def publish(self, *keys: tuple[str, object]) -> None:
        listed = [jwks_of(key, kid=kid)["keys"][0] for kid, key in keys]
        self.document = json.dumps({"keys": listed}).encode()

    def finds(self, kid: str | None) -> bool:
        return run(self.key_sets.find_published(self.url, kid, "ES256")) is not None


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher()
    with ScriptedServer(publisher.answer) as server:
        publisher.url = f"http://127.0.0.1:{server.port}/jwks"
        yield publisher


def test_published_keys_are_fetched_once(publisher: Publisher):
    publisher.publish(("first", FIRST))
    assert all(publisher.finds("first") for _ in range(10))
    assert publisher.finds(None)
    assert publisher.fetches == 1
    publisher.now += 301
    assert publisher.finds("first")
    assert publisher.fetches == 2


def test_a_new_key_is_found_as_soon_as_it_is_used(publisher: Publisher):
    publisher.publish(("first", FIRST))
    assert publisher.finds("first")
    publisher.publish(("second", SECOND))
    publisher.now += 31
    assert publisher.finds("second")
    assert not publisher.finds("first")


def test_random_key_ids_cause_no_fetches_of_their_own(publisher: Publisher):
    """Case D40."""
    publisher.publish(("first", FIRST))
    for number in range(10_000):
        assert not publisher.finds(f"random-{number}")
    assert publisher.fetches <= 2
    publisher.now += 31
    assert not publisher.finds("random")
    assert not publisher.finds("another")
    assert publisher.fetches <= 3


def test_a_key_that_replaces_another_under_its_id_is_found(publisher: Publisher):
    """After the time between two fetches; the same key is no replacement."""
    publisher.publish(("first", FIRST))
    held = run(publisher.key_sets.find_published(publisher.url, "first", "ES256"))
    assert held is not None

    def replacement():
        found = publisher.key_sets.find_replacement(publisher.url, "first", "ES256", held)
        return run(found)

    publisher.publish(("first", SECOND))
    assert all(replacement() is None for _ in range(1_000))
    assert publisher.fetches == 1
    publisher.now += 31
    assert replacement() is not None
    held = replacement()
    assert all(replacement() is None for _ in range(1_000))
    assert publisher.fetches == 2
    publisher.now += 31
    publisher.document = b"away"
    assert replacement() is None


@pytest.mark.parametrize(
    "document", [b"", b"{}", b"[]", b'{"keys": {}}', b"<html>", b'{"keys": [1], "keys": []}']
)
def test_the_last_good_keys_are_kept_for_a_time(publisher: Publisher, document: bytes):
    publisher.publish(("first", FIRST))
    assert publisher.finds("first")
    publisher.document = document
    publisher.now += 301
    assert publisher.finds("first")
    publisher.now += KEEP_SECONDS + 1
    with pytest.raises(FetchError):
        publisher.finds("first")
    publisher.publish(("first", FIRST))
    publisher.now += 301
    assert publisher.finds("first")


def test_an_address_that_never_gave_keys(publisher: Publisher):
    publisher.document = b"nothing"
    for _ in range(3):
        with pytest.raises(FetchError):
            publisher.finds("first")
    assert publisher.fetches <= 2


def test_keys_are_found_soon_after_a_document_that_was_no_key_set(publisher: Publisher):
    """Such as the page of a host under maintenance; it may say how long it is cached."""
    publisher.document = b"<html>"
    with pytest.raises(FetchError):
        publisher.finds("first")
    publisher.publish(("first", FIRST))
    with pytest.raises(FetchError):
        publisher.finds("first")
    publisher.now += 31
    assert publisher.finds("first")
    assert publisher.fetches == 2


def test_metadata_of_an_issuer_is_found_soon_after_a_page_that_was_none(publisher: Publisher):
    url = publisher.url.removesuffix("/jwks")
    issuer = Issuer(
        "partner",
        IssuerSettings(issuer=url),
        audience="https://authz.example",
        clock_skew_seconds=0,
        fetcher=publisher.key_sets._fetcher,  # noqa: SLF001 - the one of the publisher's clock
    )
    token = parse_foreign(Signer("partner", FIRST, time.time).assertion(), 8_192)
    publisher.document = b"<html>"
    for _ in range(2):
        with pytest.raises(TokenRefusedError, match="assertion_keys_unavailable"):
            run(issuer.verify(token))
    metadata = {"issuer": url, "jwks_uri": publisher.url}
    publisher.document = json.dumps(metadata | jwks_of(FIRST)).encode()
    publisher.now += 31
    run(issuer.verify(token))
    assert publisher.fetches == 3


def test_keys_that_are_withdrawn_are_not_kept(publisher: Publisher):
    publisher.publish(("first", FIRST))
    assert publisher.finds("first")
    publisher.document = b'{"keys": []}'
    publisher.now += 301
    assert not publisher.finds("first")


def test_a_registered_set_is_read_once_until_it_changes():
    key_sets = KeySets(Fetcher(OutboundSettings()))
    first, second = jwks_of(FIRST), jwks_of(SECOND)
    held = key_sets.read_inline("partner", first)
    assert key_sets.read_inline("partner", first) is held
    changed = key_sets.read_inline("partner", second)
    assert changed is not held
    assert changed.find(None, "ES256") is not None
    assert len(key_sets.read_inline("partner", None)) == 0


def test_a_damaged_registered_set_holds_no_keys():
    key_sets = KeySets(Fetcher(OutboundSettings()))
    assert len(key_sets.read_inline("partner", {"keys": [{"kty": "oct"}]})) == 0
