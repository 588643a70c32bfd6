"""A revocation reaches a kit within a second, by pushed and by polled events, on each database."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import flask
import httpx
import pytest
from werkzeug.serving import make_server

from authz_server.assembly.operator import operator_services
from authz_server.operations.event_streams import set_stream
from authz_server.operations.stops import lift_stop, plan_stop, set_stop
from authz_server.settings import load_settings
from authz_verifier import EventPoller, Refusal, Request, Verifier
from authz_verifier import flask as flask_skin
from support.live_server import LiveServer
from support.parties import ACTOR, RESOURCE_SERVERS, Demo, Parties, demo_with_keys
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings, write_shared_secrets

AUDIENCE, LINK = RESOURCE_SERVERS["mapper"], "mapper/link"
#: Longer than the test, so that only an event ends a cached list or response in time.
LONG = 300


@dataclass(frozen=True)
class Scene:
    server: LiveServer
    demo: Demo
    parties: Parties

    def token(self) -> str:
        form = {"grant_type": "client_credentials", "scope": LINK} | self.demo.post.form()
        return httpx.post(f"{self.server.base_url}/oauth2/token", data=form).json()["access_token"]

    def revoke(self, token: str) -> None:
        form = {"token": token} | self.demo.post.form()
        url = f"{self.server.base_url}/oauth2/revoke"
        assert httpx.post(url, data=form).status_code == 200

    def settings(self, mode: str) -> dict:
        given = {"client_id": self.demo.mapper.id, "client_secret": self.demo.mapper.secret}
        if mode == "hybrid":
            given |= {"money_scopes": [LINK], "introspection_cache_seconds": LONG}
        return {"mode": mode, **given}


@pytest.fixture
def scene(database_url, tmp_path) -> Iterator[Scene]:
    """A live server of two workers, whose mapper wants status lists."""

    def write(server):
        tree = {
            "issuer": f"http://127.0.0.1:{server['port']}",
            "server": server,
            "status_lists": {"ttl_seconds": LONG, "lifetime_seconds": 2 * LONG},
            "outbound": {"plain_http": True, "allowed_networks": ["127.0.0.0/8"]},
        }
        return write_settings(tmp_path, database_url, tree)

    write_shared_secrets(tmp_path)
    server = LiveServer(write, tmp_path, workers=2)
    parties = Parties(load_settings(server.settings_path), SecretsWatch())
    demo = demo_with_keys(parties, database_url, tmp_path)
    with parties.change() as (services, session):
        services.clients.update_resource_server(
            session, "mapper", actor=ACTOR, properties={"status_list": True}
        )
    with server:
        yield Scene(server, demo, parties)


def seconds_until(condition, limit: float = 10.0) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.mark.parametrize(("mode", "delivery"), [("status", "push"), ("hybrid", "poll")])
def test_a_revocation_and_a_stop_reach_the_api_within_a_second(scene, mode, delivery):
    """Without the event, the list or the response would be used for five minutes."""
    verifier = Verifier(scene.server.base_url, AUDIENCE, **scene.settings(mode))

    def is_accepted(token: str) -> bool:
        request = Request("POST", f"{AUDIENCE}/link", (f"Bearer {token}",))
        try:
            verifier.authenticate(request, LINK)
        except Refusal as refusal:
            return refusal.error != "invalid_token"
        return True

    app = flask.Flask("api")
    flask_skin.protect(app, verifier)
    flask_skin.receive_events(app)
    api = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=api.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{api.server_port}/security-events" if delivery == "push" else ""
    with operator_services(scene.parties.settings) as services:
        set_stream(services, "mapper", delivery=delivery, endpoint_url=url, actor=ACTOR)
        poller = EventPoller(verifier)
        if delivery == "poll":
            poller.start()
        time.sleep(1.5)  # the workers read the stream, the poller begins
        first, second = scene.token(), scene.token()
        assert is_accepted(first)
        assert is_accepted(second)
        scene.revoke(first)
        assert seconds_until(lambda: not is_accepted(first)) < 1
        assert is_accepted(second)
        planned = plan_stop(services, "client", scene.demo.post.id)
        set_stop(services, planned, reason="INC-1", actor=ACTOR)
        assert seconds_until(lambda: not is_accepted(second)) < 1
        lift_stop(services, "client", scene.demo.post.id, reason="over", actor=ACTOR)
        assert seconds_until(lambda: is_accepted(second)) < 1
        assert not is_accepted(first)
    poller.stop()
    api.shutdown()
    verifier.close()


def test_events_of_an_outage_are_delivered_afterwards(scene):
    """The server is killed and starts again; the API that was away starts, too."""
    with operator_services(scene.parties.settings) as services:
        set_stream(services, "mapper", delivery="poll", actor=ACTOR)
    token = scene.token()
    scene.revoke(token)
    scene.server.kill()
    scene.server.start()
    verifier = Verifier(scene.server.base_url, AUDIENCE, **scene.settings("status"))
    with EventPoller(verifier):
        seconds_until(lambda: verifier.events.received == 1)
