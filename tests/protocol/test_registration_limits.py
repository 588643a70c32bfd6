"""Requests for registration beyond the limit of their network."""

import asyncio
import threading

import pytest
from werkzeug.test import create_environ

from authz_server.app import EXTENSION
from authz_server.endpoints.wsgi import read_request
from authz_server.waiting import Lane
from support.asked import lanes
from support.parties import ACTOR
from support.protocol import Protocol, facts, require_refusal, running_protocol
from support.registration import REGISTER, UNLIMITED, Registrar


def test_requests_with_one_right_token_have_a_larger_limit(start_protocol):
    protocol: Protocol = start_protocol(registration=UNLIMITED | {"requests_per_window": 1})
    registrar = Registrar(protocol)
    clients = [registrar.new(), registrar.new()]
    initial = registrar.initial_token("mapper/link", uses=11)
    document = {"client_id": clients[0]["client_id"]}
    token = clients[0]["registration_access_token"]
    for _ in range(10):
        updated = registrar.manage("PUT", clients[0], document, token)
        assert updated.status_code == 200
        token = updated.json["registration_access_token"]
        assert registrar.register({}, initial).status_code == 201
    for refused in (
        registrar.manage("PUT", clients[0], document, token),
        registrar.register({}, initial),
    ):
        require_refusal(refused, 429, "slow_down")
        assert 1 <= int(refused.headers["Retry-After"]) <= 61
    # Another client is counted apart.
    assert registrar.manage("GET", clients[1]).status_code == 200
    protocol.clock.advance(61)
    assert registrar.manage("PUT", clients[0], document, token).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_a_right_token_from_outside_is_throttled_like_a_wrong_one(
    database_url: str, tmp_path, method: str
):
    """A thief does not learn that the token is right, and spends nothing of its client."""
    limited = UNLIMITED | {"requests_per_window": 1}
    with running_protocol(tmp_path, database_url, registration=limited) as protocol:
        throttle_from_outside(protocol, method)


def throttle_from_outside(protocol: Protocol, method: str) -> None:
    registrar = Registrar(protocol)
    client = registrar.new()
    with protocol.parties.change() as (services, session):
        services.clients.update_client(
            session,
            client["client_id"],
            actor=ACTOR,
            properties={"allowed_networks": ["198.51.100.0/24"]},
        )
    document = {"client_id": client["client_id"]} if method == "PUT" else None
    for number in range(15):
        answers = [
            registrar.manage(method, client, document, token, address=address)
            for token, address in (("", "203.0.113.1"), ("invented", "203.0.113.2"))
        ]
        assert [answer.status_code for answer in answers] == [429 if number else 401] * 2
        assert facts(answers[0]) == facts(answers[1])
    for _ in range(11):
        inside = registrar.manage("GET", client, address="198.51.100.7")
        assert inside.status_code == 200
    assert registrar.manage("GET", client, address="198.51.100.7").status_code == 429


def test_a_flood_of_wrong_tokens_takes_one_thread_of_the_database(start_protocol, monkeypatch):
    protocol: Protocol = start_protocol(registration=UNLIMITED | {"requests_per_window": 1})
    registrar = Registrar(protocol)
    token = registrar.initial_token("mapper/link")
    app, released = protocol.app, threading.Event()
    tokens = app.extensions[EXTENSION].initial_tokens
    is_usable = tokens.is_usable
    monkeypatch.setattr(tokens, "is_usable", lambda *of: released.wait(60) and is_usable(*of))

    async def statuses() -> list[int]:
        async with lanes(threads=2) as made:
            answers = []
            for sent in (*("x" * 10), token):
                headers = {"Authorization": f"Bearer {sent}"}
                environ = create_environ(REGISTER, method="POST", json={}, headers=headers)
                answers.append(asyncio.get_running_loop().create_future())
                request = read_request(environ, app.maximum_body_bytes)
                made.start(app.direct[REGISTER].respond(request), answers[-1].set_result)
            try:
                async with asyncio.timeout(30):
                    assert await made.call(Lane.DATABASE, lambda: "free") == "free"
            finally:
                released.set()
            return [(await answer).status for answer in answers]

    assert asyncio.run(statuses()) == [401] + [429] * 9 + [201]


def test_the_number_of_registered_clients_is_limited_for_each_authority(start_protocol):
    """One that registers many does not close the registration to another."""
    registrar = Registrar(start_protocol(registration=UNLIMITED | {"maximum_clients": 1}))
    token = registrar.initial_token("mapper/link", uses=2)
    first = registrar.register({}, token).json
    require_refusal(registrar.register({}, token), 403, "access_denied")
    assert registrar.new()["client_id"]
    assert registrar.manage("DELETE", first).status_code == 204
    # The refused registration has used nothing up.
    assert registrar.register({}, token).status_code == 201
