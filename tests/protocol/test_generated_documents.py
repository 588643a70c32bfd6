"""Generated JSON documents: whatever a member is, the answer is an OAuth error or a success."""

import os
from random import Random

import pytest

from authz_server.clients.registration.metadata import MEMBER_NAMES
from authz_server.endpoints.event_polling import SECURITY_EVENTS
from authz_server.endpoints.introspection_batch import BATCH
from support.assertions import JWT_BEARER, jwks_of, new_key
from support.protocol import require_refusal
from support.registration import Registrar, registrar

__all__ = ["registrar"]

#: Fewer clients are registered than `registration.maximum_clients`.
DOCUMENTS = min(2_000, int(os.environ.get("FUZZ_REQUESTS", "1000")) // 4)
SEED = os.environ.get("FUZZ_SEED", "1")
KEY = jwks_of(new_key(), kid="a")["keys"][0]
VALUES = (
    *(None, True, False, 0, -1, 10**20, 1.5, "", "x", "\x00", "\u202e", "a" * 5_000, "a.b.c"),
    *([], {}, [[]], [None], ["x"], [{}], {"a": {"b": []}}, {"keys": []}, {"keys": [1]}, {"x": 1}),
    *({"keys": [KEY | {name: odd}]} for name in ("kty", "crv", "x", "kid") for odd in ([], 5)),
    *({"keys": [KEY | {name: odd}]} for name in ("alg", "use", "key_ops") for odd in ({}, [[]])),
    *({"keys": [KEY | {"x5c": odd}]} for odd in ("", [], ["AAAA"], [7])),
    *({"keys": [KEY]}, "private_key_jwt", "tls_client_auth", "ES256", "https://a.example/j"),
    *("mapper/link", "client_credentials", ["client_credentials"], "CN=a", "#", "::1", JWT_BEARER),
)
REGISTERED = (*MEMBER_NAMES, "client_id", "client_secret", "software_statement", "client_name#fr")
SENT_WITH_TOKENS = (
    *("tokens", "token", "client_id", "client_secret", "client_assertion"),
    *("client_assertion_type", "ack", "setErrs", "maxEvents"),
)


def documents(name: str, members: tuple[str, ...]):
    """Yield documents with a few members of any value."""
    print(f"seed {SEED}")  # noqa: T201 - a failing run shows how to repeat it
    random = Random(f"{SEED}-{name}")
    for _ in range(DOCUMENTS):
        chosen = random.sample(members, random.randint(1, 4))
        yield {each: random.choice(VALUES) for each in chosen}


def test_registrations_and_updates(registrar: Registrar):
    """Cases H89, I106."""
    token = registrar.initial_token("mapper/link", uses=10_000)
    client = registrar.new()
    for document in documents("registrations", REGISTERED):
        for method in ("POST", "PUT"):
            if method == "POST":
                answer = registrar.register(document, token)
            else:
                own = document | {"client_id": client["client_id"]}
                answer = registrar.manage("PUT", client, own)
            if answer.status_code in (200, 201):
                client = answer.json
                continue
            assert answer.status_code == 400, (method, document, answer.text)
            require_refusal(answer, 400, answer.json["error"])
    assert registrar.manage("GET", client).status_code == 200


@pytest.mark.parametrize("path", [BATCH, SECURITY_EVENTS])
def test_requests_in_json(registrar: Registrar, path: str):
    """Case I106."""
    protocol, mapper = registrar.protocol, registrar.protocol.demo.mapper
    for document in documents(path, SENT_WITH_TOKENS):
        for headers in (mapper.headers(), {}):
            answer = protocol.send("POST", path, json=document, headers=headers)
            assert answer.status_code in (200, 400, 401, 404), (document, answer.text)
