"""Replies of transit are accepted only if they fit the request."""

import json
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from keys.backends.vault.transit import TransitBackend
from keys.backends.vault.transit_engine import (
    ItemError,
    read_signatures,
    read_transit_key,
    signing_request,
)
from keys.errors import BackendBroken, BackendUnavailable, VersionUnusable
from support.scripted_server import EMPTY, ScriptedServer, answer_with
from support.vault_parts import open_client, token_access

PUBLIC = b64encode(bytes(range(32))).decode()


def reply(*items: Any, **more: Any) -> dict[str, Any]:
    return {"request_id": "r-1", "data": {"batch_results": list(items)}} | more


def encode(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()


def signed(version: str = "v3", signature: bytes = b"s" * 64) -> dict[str, Any]:
    return {"signature": f"vault:{version}:{b64encode(signature).decode()}"}


def test_each_item_is_read_by_itself():
    items = (signed(), {"error": "no", "signature": ""}, signed(signature=b"t" * 64))
    first, second, third = read_signatures(reply(*items), "3", "EdDSA", 3)
    assert (first, first.request_id) == (b"s" * 64, "r-1")
    assert second == ItemError("no")
    assert third == b"t" * 64


def test_jws_signatures_come_without_padding():
    encoded = b64encode(b"\xff" * 64, altchars=b"-_").decode().rstrip("=")
    (signature,) = read_signatures(reply({"signature": f"vault:v1:{encoded}"}), "1", "ES256", 1)
    assert signature == b"\xff" * 64


@pytest.mark.parametrize(
    "answer",
    [
        reply(signed("v2")),
        reply(signed("v33")),
        reply(signed("3")),
        reply(signed(), signed()),
        reply(),
        reply({"signature": "vault:v3"}),
        reply({"signature": "vault:v3:!!!"}),
        reply({"signature": 3}),
        reply({}),
        reply("signature"),
        {"data": {"batch_results": [signed()]}},
        {"request_id": "r-1", "data": {}},
        {"request_id": "r-1", "data": None},
        {"request_id": "r-1", "data": {"batch_results": None}},
        {},
    ],
)
def test_an_answer_to_something_else_is_broken(answer):
    with pytest.raises(BackendBroken):
        read_signatures(answer, "3", "EdDSA", 1)


def test_digests_leave_in_place_of_claims_where_the_algorithm_has_one():
    for alg in ("ES256", "ES384", "ES512", "RS256", "PS256"):
        request = signing_request("7", alg, [b"claims"])
        assert request["prehashed"] is True
        assert request["key_version"] == 7
        assert b64encode(b"claims").decode() not in str(request)
    request = signing_request("7", "EdDSA", [b"claims"])
    assert request["batch_input"] == [{"input": b64encode(b"claims").decode()}]


def shown(**more: Any) -> dict[str, Any]:
    """Return the data of an ed25519 key with versions 2 and 10."""
    version = {"creation_time": "2026-11-23T21:24:53.456999002Z", "public_key": PUBLIC}
    return {
        "type": "ed25519",
        "keys": {"10": version, "2": version},
        "latest_version": 10,
        "min_available_version": 2,
        "min_decryption_version": 2,
        "min_encryption_version": 0,
        "soft_deleted": False,
        "derived": False,
        "exportable": False,
        "allow_plaintext_backup": False,
    } | more


@contextmanager
def backend_at(server: ScriptedServer) -> Iterator[TransitBackend]:
    with open_client(token_access(server.address, token="t")) as client:
        yield TransitBackend(client, "transit", "ring", "ring")


def read(**more: Any) -> Any:
    return read_transit_key(shown(**more), "transit/ring", allow_exportable=False)


def test_versions_are_in_the_order_of_their_numbers_and_their_times_have_a_zone():
    view = read().view
    assert [version.ref for version in view.versions] == ["2", "10"]
    expected = datetime(2026, 11, 23, 21, 24, 53, 456999, tzinfo=UTC)
    assert view.versions[0].created_at == expected
    assert set(view.versions[0].jwk) == {"kty", "crv", "x"}


@pytest.mark.parametrize(
    ("floors", "sign_floor", "verify_floor"),
    [
        ((0, 1, 0), "1", "1"),
        ((0, 0, 0), "1", "1"),
        ((5, 1, 0), "5", "1"),
        ((0, 4, 0), "4", "4"),
        ((5, 4, 4), "5", "4"),
        ((5, 3, 4), "5", "4"),
    ],
)
def test_floors_in_our_words(floors, sign_floor, verify_floor):
    encryption, decryption, available = floors
    view = read(
        min_encryption_version=encryption,
        min_decryption_version=decryption,
        min_available_version=available,
    ).view
    assert (view.sign_floor, view.verify_floor) == (sign_floor, verify_floor)


@pytest.mark.parametrize(
    "more",
    [
        {"keys": None},
        {"keys": {"x": {}}},
        {"keys": {"1": 1234567890}},
        {"keys": {"1": {"creation_time": "yesterday", "public_key": PUBLIC}}},
        {"keys": {"1": {"creation_time": "2026-11-23T21:24:53", "public_key": PUBLIC}}},
        {"keys": {"1": {"creation_time": "2026-11-23T21:24:53Z", "public_key": "AAAA"}}},
        {"type": "ecdsa-p256"},
        {"min_encryption_version": None},
        {"latest_version": "x"},
        # Floors that would revoke every version, and the answer about another key.
        {"min_decryption_version": 11},
        {"min_encryption_version": 11},
        {"min_available_version": 11},
        {"latest_version": 9},
        {"name": "another"},
    ],
)
def test_a_key_that_makes_no_sense_is_broken(more):
    with pytest.raises(BackendBroken, match="transit/ring"):
        read(**more)


@pytest.mark.parametrize("ref", ["0", "01", "-1", "1.0", " 1", "latest", "", "1" * 10])
def test_a_reference_that_is_no_version_is_not_even_sent(ref):
    with ScriptedServer(answer_with(b"{}")) as server, backend_at(server) as backend:
        with pytest.raises(VersionUnusable):
            backend.sign("ring", ref, "ES256", [b"data"])
        assert server.requests == []


def test_another_version_than_the_one_asked_for_is_broken_and_not_released():
    """A backend that lies, or a path in between that mixes up answers."""
    lie = reply(signed("v2"))

    def answer(connection, request) -> None:
        body = EMPTY if b"lookup-self" in request else encode(lie)
        if b"GET /v1/transit/keys" in request:
            body = encode({"data": shown()})
        answer_with(body)(connection, request)

    refused = pytest.raises(BackendBroken, match="v2 signed instead of version 10")
    with ScriptedServer(answer) as server, backend_at(server) as backend, refused:
        backend.sign("ring", "10", "EdDSA", [b"data"])


def test_a_vault_that_refuses_what_it_shows_as_fit_is_unavailable():
    """As behind a load balancer whose nodes do not know the same versions."""

    def answer(connection, request) -> None:
        body = encode(reply({"error": "higher than the latest key version"}))
        if b"GET /v1/transit/keys" in request:
            body = encode({"data": shown()})
        answer_with(body)(connection, request)

    with ScriptedServer(answer) as server, backend_at(server) as backend:
        with pytest.raises(BackendUnavailable, match="which it shows"):
            backend.sign("ring", "10", "EdDSA", [b"data"])
        with pytest.raises(VersionUnusable):
            backend.sign("ring", "9", "EdDSA", [b"data"])
