"""A node that has not read yet what another one has done to the keys."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from authz_server.app import EXTENSION, create_app
from authz_server.database.change_feed import record_change
from authz_server.key_rings.models import KeyRing
from keys.errors import StoreUnavailable
from keys.lifecycle.orders import Revoke
from keys.signer import CheckedSigner
from support.forged_tokens import segment
from support.orders import rotator_of
from support.stage import INACTIVE, METHODS, ApplicationFixture
from support.token_exchange import ACCESS_TOKEN, GRANT_TYPE
from support.watching import WatchingClient

DAY_SECONDS = 86_400
#: No process reads changes by itself during a test.
SLOW = {"refresh_interval_milliseconds": 59_000, "staleness_limit_milliseconds": 60_000}


@pytest.fixture
def stage(database_url, tmp_path) -> Iterator[ApplicationFixture]:
    """An application of this test alone: its keys do not come back."""
    stage = ApplicationFixture(tmp_path, database_url, database=SLOW)
    # The standby has been known for long enough to sign at once.
    stage.clock.advance(DAY_SECONDS)
    stage.services.feed.poll()
    yield stage
    stage.close()


@contextmanager
def node_beside(stage: ApplicationFixture) -> Iterator[ApplicationFixture]:
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


@pytest.fixture
def node(stage) -> Iterator[ApplicationFixture]:
    """The node that has not read yet which key the other one signs with."""
    with node_beside(stage) as node:
        revoke_keys(stage)
        assert not node.services.key_rings.accepts(stage.kid)
        yield node


def revoke_keys(stage: ApplicationFixture) -> None:
    """Revoke the active key and the standby: a new one signs at once."""
    for _ in range(2):
        rotator_of(stage.services).apply(Revoke(stage.kid, "a drill"), actor="operator:ada")
        stage.services.feed.poll()


@pytest.mark.parametrize("method", METHODS)
def test_a_revocation_of_a_token_of_a_new_key_is_stored(stage, node, method):
    """It was acknowledged and lost, and the token active as soon as the key was read."""
    token = stage.token(f"{method}-jwt/read", stage.callers[f"client-{method}"])
    node.revoke(token, f"client-{method}")
    for each in (node, stage):
        assert each.introspect(token, f"{method}-jwt") == INACTIVE


@pytest.mark.parametrize("method", METHODS)
def test_a_token_of_a_new_key_is_active(stage, node, method):
    token = stage.token(f"{method}-jwt/read", stage.callers[f"client-{method}"])
    assert node.introspect(token, f"{method}-jwt")["active"] is True


def test_a_token_of_a_new_key_is_active_in_a_batch(stage, node):
    tokens = [stage.token(), stage.token()]
    stage.revoke(tokens[1])
    caller = stage.callers["basic-jwt"]
    answer = node.client.post(
        "/oauth2/introspect/batch", data={"token": tokens}, headers=caller.headers()
    )
    assert [each["active"] for each in answer.get_json()["responses"]] == [True, False]


def test_a_token_of_a_new_key_is_exchanged(stage):
    gateway = stage.new_client(
        allowed_scopes=["basic-jwt/read"],
        default_scopes=[],
        grant_types=["client_credentials", GRANT_TYPE],
        properties={"token_exchange": {"subjects": ["*"], "audiences": ["basic-jwt"]}},
    )
    form = {"grant_type": GRANT_TYPE, "subject_token_type": ACCESS_TOKEN}
    with node_beside(stage) as node:
        revoke_keys(stage)
        answer = node.post("token", form | {"subject_token": stage.token()}, gateway)
        assert answer.status_code == 200, answer.text


def test_a_revocation_is_refused_while_the_key_cannot_be_read(stage, node, monkeypatch):
    async def fail(_query, _value):
        raise OperationalError("SELECT", None, Exception("away"))

    token = stage.token()
    with monkeypatch.context() as patch:
        patch.setattr(node.services.database, "fetch_one", fail)
        answer = node.post("revoke", {"token": token}, stage.callers["client-basic"])
        assert answer.status_code == 503
    assert stage.introspect(token)["active"] is True


def test_invented_keys_make_a_node_read_nothing_again(stage, node, monkeypatch):
    node.services.feed.poll()
    loads, load = [], node.services.key_rings.load
    monkeypatch.setattr(node.services.key_rings, "load", lambda: loads.append(1) or load())
    header, _, signature = stage.token().split(".")
    for number in range(20):
        header = segment({"alg": "ES256", "kid": f"invented-{number}", "typ": "at+jwt"})
        token = f"{header}.{segment(stage.claims())}.{signature}"
        node.revoke(token)
        assert node.introspect(token) == INACTIVE
    assert loads == []


def test_a_node_that_cannot_read_the_keys_answers_nothing(stage, monkeypatch):
    """It took the change for read, and the tokens of a revoked key stayed active there."""

    def fail(_loaded_at):
        raise StoreUnavailable("the tables are locked")

    token, caller = stage.token(), stage.callers["basic-jwt"]
    with node_beside(stage) as node:
        assert node.introspect(token)["active"] is True
        revoke_keys(stage)
        with monkeypatch.context() as patch:
            patch.setattr(node.services.key_store, "load_rings", fail)
            with pytest.raises(OperationalError, match="the tables are locked"):
                node.services.feed.poll()
            assert node.post("introspect", {"token": token}, caller).status_code == 503
        node.services.feed.poll()
        assert node.introspect(token) == INACTIVE


def test_a_node_answers_nothing_by_an_earlier_state_of_the_keys(stage):
    """A fail-over may lose a change: by the state before it, a revoked key would be accepted."""
    with stage.services.database.reading() as session:
        (epoch,) = session.scalars(select(KeyRing.epoch))
    with node_beside(stage) as node:
        token, caller = stage.token(), stage.callers["basic-jwt"]
        revoke_keys(stage)
        node.services.feed.poll()
        with stage.services.database.transaction() as session:
            session.execute(update(KeyRing).values(epoch=epoch))
            record_change(session, "key", "es256")
        with pytest.raises(OperationalError, match="restart the server if the database was"):
            node.services.feed.poll()
        assert node.post("introspect", {"token": token}, caller).status_code == 503
    with node_beside(stage) as restarted:
        assert restarted.introspect(token) == INACTIVE


def test_a_change_of_keys_is_read_without_a_backend(stage, node, monkeypatch):
    """Introspection would wait for it, and be refused while a Vault hangs."""
    proved = []
    monkeypatch.setattr(CheckedSigner, "prove_candidates", lambda *_: proved.append(1))
    assert node.introspect(stage.token())["active"] is True
    node.services.feed.poll()
    assert proved == []
