"""Answers of the health listener: ready, degraded, not ready; and the page of metrics."""

import psycopg
import pytest
from flask import Flask
from sqlalchemy.exc import OperationalError

from authz_server.endpoints.health import health_blueprint
from authz_server.endpoints.readiness import KeyReadiness
from authz_server.metrics.source import KnownBackends
from keys.lifecycle.judgement import Judgement, Standing

TRANSIT, SQL = "transit://transit/a", "sql://"


class Rings:
    """As much of the key rings as readiness looks at."""

    def __init__(self, *active, waiting=()):
        self.active = active
        self.waiting = waiting

    def has_active_key(self, ring):
        return ring in self.active

    def judge(self, ring):
        if ring in self.active:
            return Judgement(Standing.SIGNING, "a key signs and one stands by")
        if ring in self.waiting:
            return Judgement(Standing.WAITING, "its first key signs from tomorrow")
        return Judgement(Standing.IDLE, "no key may sign")


class Page:
    """A page of metrics."""

    content_type = "text/plain; version=0.0.4"

    def render(self, ready):
        return "".join(f"{name} {holds:d}\n" for name, holds in ready.items()).encode()


def ask(path, readiness, metrics=None):
    app = Flask(__name__)
    app.register_blueprint(
        health_blueprint(
            {"keys": readiness.require},
            dict,
            degradations=readiness.degradations,
            metrics=metrics,
        )
    )
    return app.test_client().get(path)


def keys(active, **known):
    backends = {"one": TRANSIT, "two": SQL}
    known = KnownBackends(**{name: frozenset(value) for name, value in known.items()})
    return KeyReadiness(backends, Rings(*active), lambda: known)


ANSWERS = [
    (keys(["one", "two"]), 200, {"status": "ready", "failed": []}),
    (
        keys(["one", "two"], down=[TRANSIT], viewed_rings=["one"]),
        200,
        {
            "status": "degraded",
            "failed": [],
            "degraded": ["keys:one its backend does not answer"],
        },
    ),
    (
        keys(["two"]),
        200,
        {"status": "degraded", "failed": [], "degraded": ["keys:one no key may sign"]},
    ),
    # An address of a Vault is not the ring's backend: another address answers.
    (keys(["one", "two"], down=["https://v1"]), 200, {"status": "ready", "failed": []}),
    (
        keys([]),
        503,
        {
            "status": "not ready",
            "failed": ["keys"],
            "reasons": {"keys": "no ring can sign: one, two"},
        },
    ),
]


@pytest.mark.parametrize(("readiness", "status", "body"), ANSWERS)
def test_readiness_tells_what_can_be_issued(readiness, status, body):
    """Case G79."""
    answer = ask("/health/ready", readiness)
    assert (answer.status_code, answer.json) == (status, body)
    assert answer.headers["Cache-Control"] == "no-store"


def test_the_reason_of_a_database_is_the_sentence_of_its_driver():
    def check():
        refused = psycopg.OperationalError("connection failed:\n\tConnection refused")
        raise OperationalError("SELECT %s", {"a": "value"}, refused)

    app = Flask(__name__)
    app.register_blueprint(health_blueprint({"database": check}, dict))
    answer = app.test_client().get("/health/ready")
    assert answer.json["reasons"] == {"database": "connection failed: Connection refused"}


def test_the_reason_that_a_worker_knows_is_told_instead_of_a_silence():
    down = keys(["one", "two"], down=[TRANSIT], viewed_rings=["one"])
    sealed = "keys:one https://v1 is sealed"
    assert down.degradations([sealed]) == [sealed]
    silent = "keys:one its backend does not answer"
    # Of the default ring workers tell the reason without its name.
    assert down.degradations(["keys: https://v1 is sealed"]) == [silent]
    assert down.degradations(["keys:ones is another ring"])[0] == silent


def test_a_ring_without_a_key_explains_what_workers_tell_of_the_default_ring():
    without = keys(["two"])
    told = [
        "keys: the ring 'one' has no key that may sign now",
        "keys:two it is soft-deleted",
        "x: y",
    ]
    assert without.degradations(told) == ["keys:one no key may sign", *told[1:]]


def test_a_ring_that_waits_for_its_first_key_is_in_order():
    """The day of a healthy move."""
    rings = Rings("one", waiting=("two",))
    readiness = KeyReadiness({"one": TRANSIT, "two": SQL}, rings)
    assert ask("/health/ready", readiness).json == {"status": "ready", "failed": []}
    alone = KeyReadiness({"two": SQL}, rings)
    assert ask("/health/ready", alone).status_code == 503, "but nothing signs meanwhile"


def test_a_start_without_any_backend_is_not_ready_a_later_outage_is_only_degraded():
    """Case G82."""

    def alone(**known):
        known = KnownBackends(**{name: frozenset(value) for name, value in known.items()})
        return KeyReadiness({"one": TRANSIT}, Rings("one"), lambda: known)

    assert ask("/health/ready", alone(down=[TRANSIT])).status_code == 503
    later = ask("/health/ready", alone(down=[TRANSIT], viewed_rings=["one"]))
    assert (later.status_code, later.json["status"]) == (200, "degraded")
    assert ask("/health/ready", alone(viewed_rings=["one"])).json["status"] == "ready"


def test_a_start_is_not_ready_before_a_backend_has_answered():
    """Case G82."""
    heard, now = [KnownBackends(reported=True)], [100.0]
    readiness = KeyReadiness(
        {"one": TRANSIT}, Rings("one"), lambda: heard[-1], monotonic=lambda: now[-1]
    )
    assert ask("/health/ready", readiness).status_code == 503
    heard.append(KnownBackends(reported=True, viewed_rings=frozenset({"one"})))
    assert ask("/health/ready", readiness).json["status"] == "ready"
    # Whoever could not ask for a while, for want of the database, is not suspected for ever.
    heard.append(KnownBackends(reported=True))
    now.append(106.0)
    assert ask("/health/ready", readiness).json["status"] == "ready"


def test_the_metrics_are_shown_as_they_are_and_not_kept():
    answer = ask("/metrics", keys(["one"]), Page())
    assert answer.data == b"keys 1\n"
    assert ask("/metrics", keys([]), Page()).data == b"keys 0\n"
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4"
    assert answer.headers["Cache-Control"] == "no-store"
    assert ask("/metrics", keys(["one"])).status_code == 404
