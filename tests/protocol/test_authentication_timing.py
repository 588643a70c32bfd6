"""The time of a refusal does not depend on its reason.

Processor time of the thread is measured, not the clock on the wall, so that a busy machine does not
matter, and medians are compared. Up to five parts in a hundred, some microseconds that no sender
can resolve, one place in the memory of a process costs more than another for as long as it lives; a
check that is left out or made twice costs more. A round of 250 samples of each kind is repeated up
to ROUNDS times, and one round without a difference is enough: what really takes longer for one kind
does so in every round.
"""

import gc
import io
import random
import time
from collections.abc import Callable
from itertools import combinations
from statistics import median
from urllib.parse import urlencode

import pytest
from argon2 import PasswordHasher
from werkzeug.test import EnvironBuilder

from support.assertions import Signer, make_signer
from support.parties import ACTOR
from support.protocol import ENDPOINTS, FORM_TYPE, PRESENTATIONS, Protocol, method_of, present

SAMPLES = 250
ROUNDS = 4
LIMIT = 0.05
WRONG = "wrong-wrong-wrong-wrong-wrong-wrong-wrong-w"


class Request:
    """A request that can be made again and again, at the least cost of its own."""

    def __init__(self, protocol: Protocol, endpoint: str, offered: tuple[dict, dict]) -> None:
        fields, headers = offered
        self._app = protocol.app.wsgi_app
        self._body = urlencode(protocol.form(endpoint) | fields).encode()
        headers = {"Content-Type": FORM_TYPE, **protocol.profile_headers(endpoint), **headers}
        builder = EnvironBuilder(
            ENDPOINTS[endpoint], method="POST", data=self._body, headers=headers
        )
        self._environ = builder.get_environ()
        builder.close()

    def cost(self) -> int:
        """Make the request; return the nanoseconds of processor time that it took."""
        environ = self._environ | {"wsgi.input": io.BytesIO(self._body)}
        statuses: list[str] = []
        began = time.thread_time_ns()
        answer = self._app(environ, lambda status, *_: statuses.append(status))
        took = time.thread_time_ns() - began
        getattr(answer, "close", bool)()
        assert statuses[0].startswith("401")
        return took


def one_round(requests: dict[str, Request]) -> dict[str, list[int]]:
    """Return interleaved samples of each kind."""
    costs: dict[str, list[int]] = {kind: [] for kind in requests}
    order = list(requests)
    gc.collect()
    gc.disable()
    try:
        for _ in range(SAMPLES):
            random.shuffle(order)
            for kind in order:
                costs[kind].append(requests[kind].cost())
    finally:
        gc.enable()
    return costs


def complaints(costs: dict[str, list[int]]) -> list[str]:
    """Return what tells one kind from another."""
    medians = {kind: median(costs[kind]) for kind in costs}
    ratios = {(one, other): medians[one] / medians[other] for one, other in combinations(costs, 2)}
    return [
        f"{one} against {other}: {ratio:.4f}"
        for (one, other), ratio in ratios.items()
        if not 1 - LIMIT < ratio < 1 + LIMIT
    ]


def require_alike(make_requests: Callable[[], dict[str, Request]]) -> None:
    """Raise AssertionError unless a round finds nothing that tells one kind from another."""
    for _ in range(ROUNDS):
        found = complaints(one_round(make_requests()))
        if not found:
            return
    raise AssertionError(found)


@pytest.mark.parametrize(
    ("endpoint", "presentation"),
    [
        ("token", "client_secret_post"),
        ("g2p", "client_secret_basic"),
        ("introspect", "client_secret_basic"),
        ("revoke", "client_secret_post"),
    ],
)
def test_unknown_wrong_and_disabled_cost_alike(start_protocol, endpoint: str, presentation: str):
    """Case A2."""
    protocol = start_protocol(logging={"level": "info"})
    right, disabled = (protocol.new_client(presentation) for _ in range(2))
    with protocol.parties.change() as (services, session):
        services.clients.set_enabled(session, disabled.id, actor=ACTOR, enabled=False)
    offers = {
        "unknown": (right.id[:-1] + "x", WRONG),
        "wrong": (right.id, WRONG),
        "disabled": (disabled.id, disabled.secret),
    }
    require_alike(
        lambda: {
            kind: Request(protocol, endpoint, present(presentation, *offer))
            for kind, offer in offers.items()
        }
    )


@pytest.mark.parametrize(
    ("endpoint", "alg"),
    [("token", "ES256"), ("introspect", "EdDSA"), ("revoke", "PS256"), ("g2p", "HS256")],
)
def test_refused_assertions_cost_alike(start_protocol, endpoint: str, alg: str):
    """Case A2."""
    protocol = start_protocol(logging={"level": "info"})
    clock = protocol.clock
    right, disabled, other = (
        make_signer(protocol.parties, name, lambda: clock().timestamp(), alg)
        for name in ("signer-1", "signer-2", "signer-3")
    )
    with protocol.parties.change() as (services, session):
        services.clients.set_enabled(session, disabled.id, actor=ACTOR, enabled=False)
    # The header and the claims have the same size for each.
    offers = {
        name: (Signer(client_id, other.key, other.now, alg, other.kid).form(), {})
        for name, client_id in (
            ("unknown", "signer-0"),
            ("wrong", right.id),
            ("disabled", disabled.id),
        )
    }
    require_alike(
        lambda: {kind: Request(protocol, endpoint, offer) for kind, offer in offers.items()}
    )


class CountingArgon2(PasswordHasher):
    """Argon2id at its least cost, which counts how often it is asked."""

    verified = 0

    def verify(self, *arguments, **options):
        self.verified += 1
        return super().verify(*arguments, **options)


@pytest.mark.parametrize("presentation", PRESENTATIONS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_imported_secrets_do_not_show(start_protocol, monkeypatch, endpoint, presentation):
    """Case A2."""
    counting = CountingArgon2(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr("authz_server.clients.secrets._argon2", counting)
    protocol = start_protocol()
    method = method_of(presentation)
    # With a character that has a second reading in a Basic header that is not encoded.
    secret = "imported+secret"
    generated, imported, disabled = (protocol.new_client(method) for _ in range(3))
    with protocol.parties.change() as (services, session):
        for client in (imported, disabled):
            services.clients.end_secret(
                session,
                client.id,
                services.clients.get_client(session, client.id).secrets[0].id,
                actor=ACTOR,
            )
            services.clients.add_secret(
                session, client.id, actor=ACTOR, imported_secret=secret.encode()
            )
    assert protocol.offer(endpoint, presentation, imported.id, secret).status_code == 200
    assert protocol.offer(endpoint, presentation, disabled.id, secret).status_code == 200
    with protocol.parties.change() as (services, session):
        services.clients.set_enabled(session, disabled.id, actor=ACTOR, enabled=False)
    offers = (
        ("no-such-client", "wrong+secret"),
        (generated.id, "wrong+secret"),
        (imported.id, "wrong+secret"),
        (disabled.id, "wrong+secret"),
        (disabled.id, secret),
    )

    def costs() -> set[int]:
        counts = set()
        for client_id, offered in offers:
            before = counting.verified
            assert protocol.offer(endpoint, presentation, client_id, offered).status_code == 401
            counts.add(counting.verified - before)
        return counts

    assert costs() == {2 if presentation.startswith("client_secret_basic") else 1}
    # The outcome is remembered for all alike.
    assert costs() == {0}


def test_statistic_sees_a_difference_and_no_other():
    """Case A2."""
    numbers = random.Random(7)
    one, other = ([int(numbers.gauss(100_000, 5_000)) for _ in range(SAMPLES)] for _ in range(2))
    assert complaints({"one": one, "other": other}) == []
    assert complaints({"one": one, "slower": [value + 8_000 for value in other]})
