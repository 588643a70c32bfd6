"""Keys that are withdrawn: what their tokens are worth then, on every node, and who hears of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from authz_server.app import EXTENSION, create_app
from keys.backend import Capabilities, TracedSignature
from keys.backends.local.backend import LocalBackend
from keys.lifecycle.orders import Revoke, Taint
from support.claims import header_of
from support.orders import rotator_of
from support.stage import INACTIVE, METHODS, ApplicationFixture
from support.watching import WatchingClient

JWKS = "/.well-known/jwks.json"
DAY_SECONDS = 86_400


@pytest.fixture
def stage(database_url, tmp_path) -> Iterator[ApplicationFixture]:
    """An application of this test alone: its keys do not come back."""
    stage = ApplicationFixture(tmp_path, database_url)
    # The standby has been known for long enough to sign at once.
    stage.clock.advance(DAY_SECONDS)
    stage.services.feed.poll()
    yield stage
    stage.close()


def withdraw(stage: ApplicationFixture, order: type[Revoke | Taint], kid: str) -> None:
    rotator_of(stage.services).apply(order(kid, "a drill"), actor="operator:ada")
    stage.services.feed.poll()


@contextmanager
def further_node(stage: ApplicationFixture) -> Iterator[ApplicationFixture]:
    """Another node on the same database, as the same callers talk to it."""
    node = object.__new__(ApplicationFixture)
    node.__dict__ |= stage.__dict__
    node.app = create_app(stage.settings, clock=stage.clock)
    node.services = node.app.extensions[EXTENSION]
    node.client = WatchingClient(node.app)
    node.client.watch = stage.watch
    node.services.feed.poll()
    yield node
    node.services.maintenance.stop()
    node.services.database.close()
    node.services.sink.close()


def kids(stage: ApplicationFixture) -> set[str]:
    return {key["kid"] for key in stage.client.get(JWKS).get_json()["keys"]}


def events(stage: ApplicationFixture, name: str) -> list[dict]:
    return [record for record in stage.records() if record["event"] == name]


def test_tokens_of_a_tainted_key_work_and_are_told_of_once(stage: ApplicationFixture):
    """Case G83."""
    tokens, reference = [stage.token() for _ in range(3)], stage.token("basic-reference/read")
    tainted = stage.kid
    withdraw(stage, Taint, tainted)
    assert stage.introspect(reference, "basic-reference")["active"] is True
    assert stage.introspect(stage.token())["active"] is True
    assert events(stage, "token.tainted") == []
    for token in tokens:
        assert stage.introspect(token)["active"] is True
    (told,) = events(stage, "token.tainted")
    assert (told["kid"], told["client_id"], told["outcome"]) == (tainted, "client-basic", "alarm")
    assert tainted in kids(stage)
    assert header_of(stage.token())["kid"] != tainted


def test_a_tainted_token_that_nobody_may_see_is_not_told_of(stage: ApplicationFixture):
    token = stage.token()
    ended = stage.token()
    stage.revoke(ended)
    withdraw(stage, Taint, stage.kid)
    assert stage.introspect(token, "post-jwt") == INACTIVE
    assert stage.introspect(ended) == INACTIVE
    assert events(stage, "token.tainted") == []


@pytest.mark.parametrize("method", METHODS)
def test_tokens_of_a_revoked_key_are_inactive_on_every_node(stage: ApplicationFixture, method):
    """Case G83."""
    owner, caller = f"{method}-jwt", f"client-{method}"
    token, kid = stage.token(f"{owner}/read", stage.callers[caller]), stage.kid
    with further_node(stage) as node:
        assert node.introspect(token, owner)["active"] is True
        assert kids(node) == kids(stage)
        assert kid in kids(node)
        withdraw(stage, Revoke, kid)
        # The other node hears of it by the change feed, as of everything else.
        node.services.feed.poll()
        for each in (stage, node):
            assert each.introspect(token, owner) == INACTIVE
            assert each.introspect(token, caller) == INACTIVE
            each.revoke(token, caller)
            assert kid not in kids(each)
            fresh = each.token()
            assert header_of(fresh)["kid"] != kid
            assert stage.introspect(fresh)["active"] is True
        assert node.client.get(JWKS).data == stage.client.get(JWKS).data
        assert node.client.get(JWKS).headers["ETag"] == stage.client.get(JWKS).headers["ETag"]
    revoked = [each for each in events(stage, "key.changed") if each["action"] == "key.revoked"]
    assert [(each["kid"], each["reason"], each["actor"]) for each in revoked] == [
        (kid, "a drill", "operator:ada")
    ]


def test_verifiers_are_told_to_ask_more_often_for_a_day_after_a_revocation(
    stage: ApplicationFixture,
):
    """Case G83."""
    with further_node(stage) as node:
        for each in (stage, node):
            assert each.client.get(JWKS).headers["Cache-Control"] == "public, max-age=900"
        withdraw(stage, Revoke, stage.kid)
        node.services.feed.poll()
        for after, age in ((0, 60), (DAY_SECONDS - 1, 60), (1, 900)):
            stage.clock.advance(after)
            for each in (stage, node):
                answer = each.client.get(JWKS)
                assert answer.headers["Cache-Control"] == f"public, max-age={age}"
                again = each.client.get(JWKS, headers={"If-None-Match": answer.headers["ETag"]})
                assert again.status_code == 304
                assert again.headers["Cache-Control"] == f"public, max-age={age}"


class RemoteBackend(LocalBackend):
    """The local backend behind a pretended network, whose audit log numbers the calls."""

    caps = Capabilities(algs=frozenset({"ES256"}), in_process=False)

    def __init__(self, storage, key_encryption_key, clock) -> None:
        super().__init__(storage, key_encryption_key, clock)
        self.calls: list[str] = []

    def sign(self, ring, ref, alg, inputs):
        """Return signatures that know which call made them."""
        self.calls.append(f"call-{len(self.calls) + 1}")
        signatures = super().sign(ring, ref, alg, inputs)
        return [TracedSignature(signature, self.calls[-1]) for signature in signatures]


@pytest.fixture
def remote(stage: ApplicationFixture) -> RemoteBackend:
    """The stage's keys, from now on kept by a remote backend."""
    services = stage.services
    local = services.key_backends["sql://"]
    remote = RemoteBackend(
        local._storage,  # noqa: SLF001 - the same keys
        services.settings.keys.key_encryption_key.reveal(),
        stage.clock,
    )
    services.key_rings._backends["sql://"] = remote  # noqa: SLF001 - there is one way to open it
    return remote


def test_every_remote_signature_is_accounted_for(stage: ApplicationFixture, remote: RemoteBackend):
    token, _ = stage.token(), stage.token("basic-reference/read")
    caller = stage.callers["basic-jwt"]
    accepted = {"Accept": "application/token-introspection+jwt"}
    for headers in (accepted, {}):
        answer = stage.post("introspect", {"token": token}, caller, headers)
        assert answer.status_code == 200
    issued = [each["backend_request_id"] for each in events(stage, "token.issued")]
    (made,) = events(stage, "signature.made")
    assert [*issued, made["backend_request_id"]] == ["call-1", "", "call-2"]
    assert remote.calls == ["call-1", "call-2"]
    assert (made["purpose"], made["client_id"]) == ("introspection", "basic-jwt")
    assert made["kid"] == header_of(token)["kid"]
    assert made["source_address"] == "127.0.0.1"


def test_local_signatures_need_no_accounting(stage: ApplicationFixture):
    answer = stage.post(
        "introspect",
        {"token": stage.token()},
        stage.callers["basic-jwt"],
        {"Accept": "application/token-introspection+jwt"},
    )
    assert answer.status_code == 200
    assert events(stage, "signature.made") == []
    assert events(stage, "token.issued")[0]["backend_request_id"] == ""
