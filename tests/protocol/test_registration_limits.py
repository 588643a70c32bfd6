"""Requests for registration beyond the limit of their network."""

import asyncio
import threading

from werkzeug.test import create_environ

from authz_server.app import EXTENSION
from authz_server.endpoints.wsgi import read_request
from authz_server.waiting import Lane
from support.asked import lanes
from support.protocol import Protocol, require_refusal
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
