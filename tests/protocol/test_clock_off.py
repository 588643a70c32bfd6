"""A node whose clock is off the database's: what it does, what it does not, who learns of it."""

import json
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from urllib.parse import urlsplit

import httpx
import pytest

from authz_server.admin.app import create_admin_app
from authz_server.app import EXTENSION, create_app
from authz_server.assembly.operator import operator_services
from authz_server.operations.operators import create_operator
from authz_server.settings import load_settings
from authz_server.tokens.event_streams.models import EventStream
from support.claims import claims_of
from support.clock import FakeClock
from support.live_server import LiveServer, call_cli_json
from support.parties import ACTOR, Parties, make_demo, note_demo
from support.prepared import take_prepared
from support.protocol import ENDPOINTS
from support.registration import REGISTER
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings, write_shared_secrets
from support.vault_side import await_that

HOUR = 3_600
KEYS = {"refresh_interval_seconds": 1, "clock_tolerance_seconds": 2}


@pytest.fixture
def settings_file(tmp_path, postgresql_url):
    write_shared_secrets(tmp_path)
    return write_settings(tmp_path, postgresql_url, {"keys": KEYS})


@pytest.fixture
def parties(settings_file, secrets_watch):
    return Parties(load_settings(settings_file), secrets_watch)


def make_keys_and_demo(url, folder):
    parties = Parties(load_settings(write_settings(folder, url, {"keys": KEYS})), SecretsWatch())
    with parties.together():
        parties.create_first_keys()
        return make_demo(parties)


@pytest.fixture
def demo(parties, postgresql_url, tmp_path):
    demo = take_prepared(postgresql_url, tmp_path, {}, "clock off", make_keys_and_demo)
    assert demo is not None
    note_demo(parties.watch, demo)
    return demo


# ------------------------------------------------------------------------------- in processes


@pytest.fixture
def server(tmp_path, postgresql_url, demo, database_clock):
    """A running server; its tests set the database's clock off its machine's."""
    del demo, database_clock

    def write(**overrides):
        return write_settings(tmp_path, postgresql_url, {"keys": KEYS} | overrides)

    with LiveServer(write, tmp_path) as server:
        yield server


def ask(server, demo):
    form = {"grant_type": "client_credentials"} | demo.post.form()
    return httpx.post(server.base_url + ENDPOINTS["token"], data=form, timeout=20)


def readiness(server):
    answer = httpx.get(f"{server.health_url}/health/ready", timeout=20)
    return answer.text if answer.status_code == 503 else ""


def records_of(server):
    path = server.settings_path.parent / "audit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def clock_alarms(server):
    return [record for record in records_of(server) if record.get("alarm") == "clock.off"]


def offsets(server):
    page = httpx.get(f"{server.health_url}/metrics", timeout=20).text
    lines = [line for line in page.splitlines() if "node_clock_offset_seconds{" in line]
    return [float(line.rpartition(" ")[2]) for line in lines]


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_a_running_node_signs_nothing_moves_nothing_and_says_so(
    server, demo, database_clock, ahead
):
    assert ask(server, demo).status_code == 200
    rings = call_cli_json("keys", "list", config=server.settings_path)
    database_clock.set_ahead(ahead)
    await_that(lambda: ask(server, demo).status_code == 503, "no token")
    await_that(lambda: clock_alarms(server), "the alarm is recorded")
    (alarm,) = clock_alarms(server)
    way = "behind" if ahead > 0 else "ahead of"
    assert f"clock is 3600.0 s {way} the database's" in alarm["detail"]
    assert "clock.off" in server.log()
    refused = [record for record in records_of(server) if record["event"] == "token.refused"]
    assert {record["client_id"] for record in refused} == {demo.post.id}
    await_that(lambda: "clock: this machine's clock is" in readiness(server), "not ready")
    await_that(lambda: offsets(server) == [pytest.approx(ahead, abs=1)], "the metric", 40)
    status = call_cli_json("keys", "status", config=server.settings_path)
    (node,) = status["rings"][0]["nodes"]
    assert node["clock_off"]
    assert not node["silent"]
    time.sleep(2)
    assert len(clock_alarms(server)) == 1, "once until it is right again"
    database_clock.set_ahead(0)
    await_that(lambda: ask(server, demo).status_code == 200, "a token again")
    await_that(server.is_ready, "ready again")
    assert call_cli_json("keys", "list", config=server.settings_path) == rings


# ------------------------------------------------------------------------------- in this process


@contextmanager
def node(settings_file, clock):
    """The application of one process."""
    app = create_app(load_settings(settings_file), clock=clock)
    services = app.extensions[EXTENSION]
    services.key_rings.refresh()
    services.feed.poll()
    try:
        yield app.test_client()
    finally:
        services.maintenance.stop()
        services.database.close()
        services.sink.close()


def token_of(client, demo):
    answer = client.post(
        ENDPOINTS["token"], data={"grant_type": "client_credentials"} | demo.post.form()
    )
    assert answer.status_code == 200, answer.text
    return answer.get_json()["access_token"]


def is_active(client, demo, token):
    answer = client.post(
        ENDPOINTS["introspect"], data={"token": token}, headers=demo.mapper.headers()
    )
    assert answer.status_code == 200, answer.text
    return answer.get_json()["active"]


def test_a_node_whose_clock_is_off_issues_no_reference_token_either(
    settings_file, demo, parties, database_clock
):
    """It needs no signature, but no cut-off would find a token of the future."""
    with parties.change() as (services, session):
        for server in (demo.mapper, demo.disburse):
            services.clients.update_resource_server(
                session, server.id, actor=ACTOR, token_format="reference"
            )
    form = {"grant_type": "client_credentials"} | demo.post.form()
    for ahead, status in ((0, 200), (-HOUR, 503), (HOUR, 503)):
        database_clock.set_ahead(ahead)
        with node(settings_file, FakeClock()) as other:
            answer = other.post(ENDPOINTS["token"], data=form)
            assert answer.status_code == status, answer.text
            assert "." not in answer.get_json().get("access_token", "")


def test_a_node_behind_answers_inactive_once_the_token_has_expired(
    settings_file, demo, database_clock
):
    clock = FakeClock()
    with node(settings_file, clock) as right:
        token = token_of(right, demo)
        life = claims_of(token)["exp"] - claims_of(token)["iat"]
        for late, expected in ((life - 10, True), (life + 10, False)):
            # So late is it by the database's clock, while that of the node stands still.
            database_clock.set_ahead(late)
            with node(settings_file, clock) as behind:
                assert is_active(behind, demo, token) is expected
        assert is_active(right, demo, token), "that node's clock was right when it began"


def test_a_node_behind_answers_inactive_once_the_client_has_expired(
    settings_file, demo, parties, database_clock
):
    clock = FakeClock()
    with node(settings_file, clock) as right:
        token = token_of(right, demo)
    with parties.change() as (services, session):
        end = clock() + timedelta(seconds=60)
        services.clients.update_client(session, demo.post.id, actor=ACTOR, expires_at=end)
    for late, expected in ((50, True), (70, False)):
        database_clock.set_ahead(late)
        with node(settings_file, clock) as behind:
            assert is_active(behind, demo, token) is expected


def test_a_node_behind_refuses_a_secret_that_has_ended(
    settings_file, demo, parties, database_clock
):
    clock = FakeClock()
    with node(settings_file, clock) as right:
        token = token_of(right, demo)
    with parties.change() as (services, session):
        (secret,) = services.clients.get_client(session, demo.mapper.id).secrets
        end = clock() + timedelta(seconds=60)
        services.clients.end_secret(session, demo.mapper.id, secret.id, actor=ACTOR, at=end)
    for late, expected in ((50, 200), (70, 401)):
        database_clock.set_ahead(late)
        with node(settings_file, clock) as behind:
            answer = behind.post(
                ENDPOINTS["introspect"], data={"token": token}, headers=demo.mapper.headers()
            )
            assert answer.status_code == expected, answer.text


def test_a_node_ahead_answers_active_while_the_token_is_in_force(
    settings_file, demo, database_clock
):
    clock = FakeClock()
    with node(settings_file, clock) as right:
        token = token_of(right, demo)
    database_clock.set_ahead(-HOUR)
    clock.advance(HOUR)
    with node(settings_file, clock) as ahead:
        assert is_active(ahead, demo, token)


def test_a_cut_off_elsewhere_reaches_the_tokens_of_a_node_that_is_ahead(
    settings_file, demo, parties
):
    """It issues tokens within the tolerance, with the time of its own clock."""
    ahead = timedelta(seconds=1.5)
    with node(settings_file, lambda: datetime.now(UTC) + ahead) as other:
        services = other.application.extensions[EXTENSION]
        services.key_store.clock_offset_seconds = lambda: -ahead.total_seconds()
        services.key_rings.load()
        services.key_jobs.report_node()
        token = token_of(other, demo)
        assert is_active(other, demo, token)
        with parties.change() as (operator, session):
            operator.revocations.cut_off_client(session, demo.post.id, actor=ACTOR, reason="test")
        assert not is_active(other, demo, token)
        assert is_active(other, demo, token_of(other, demo))


def test_a_node_behind_refuses_an_initial_access_token_that_has_expired(
    tmp_path, postgresql_url, demo, parties, database_clock
):
    del demo
    registration = {"keys": KEYS, "registration": {"enabled": True}}
    settings_file = write_settings(tmp_path, postgresql_url, registration)
    clock = FakeClock()
    with parties.change() as (services, session):
        end = clock() + timedelta(seconds=60)
        _, token = services.initial_tokens.create(session, actor=ACTOR, expires_at=end, uses=2)
    headers = {"Authorization": f"Bearer {token}"}
    for late, expected in ((50, 201), (70, 401)):
        database_clock.set_ahead(late)
        with node(settings_file, clock) as behind:
            answer = behind.post(REGISTER, json={}, headers=headers)
            assert answer.status_code == expected, answer.text


def test_a_node_that_cannot_sign_leaves_events_to_the_others(
    settings_file, demo, parties, database_clock
):
    """A failure of its own would postpone the next attempt of every node."""
    with parties.change() as (services, session):
        services.clients.set_enabled(session, demo.post.id, actor=ACTOR, enabled=False)
        session.add(
            EventStream(
                resource_server_id=demo.mapper.id,
                delivery="push",
                endpoint_url="https://events.example.org/",
                events=[],
                position=0,
                pending={},
                failures=0,
                last_error="",
                created_at=datetime.now(UTC),
            )
        )
    database_clock.set_ahead(-HOUR)
    with node(settings_file, FakeClock()) as ahead:
        pusher = ahead.application.extensions[EXTENSION].event_pusher
        assert pusher.push_one(demo.mapper.id) == 0
    with parties.change() as (_, session):
        stream = session.get(EventStream, demo.mapper.id)
        assert (stream.failures, stream.retry_at, stream.leased_until) == (0, None, None)


def test_a_node_behind_refuses_a_link_and_a_session_that_have_expired(
    tmp_path, postgresql_url, demo, database_clock
):
    del demo
    settings = load_settings(
        write_settings(tmp_path, postgresql_url, {"keys": KEYS, "admin": {"enabled": True}})
    )
    with operator_services(settings) as services:
        database_clock.set_ahead(-HOUR)
        link = create_operator(services, actor=ACTOR, name="ada").enrolment.link
    for late, expected in ((10, HTTPStatus.OK), (20, HTTPStatus.FORBIDDEN)):
        database_clock.set_ahead(late * 60 - HOUR)
        app = create_admin_app(settings)
        services = app.extensions[EXTENSION]
        services.key_rings.refresh()
        answer = app.test_client().get(urlsplit(link).path, base_url="http://localhost:8082")
        services.maintenance.stop()
        services.database.close()
        services.sink.close()
        assert answer.status_code == expected, answer.text


def test_what_a_machine_ahead_ends_now_has_ended_by_the_databases_clock(
    settings_file, demo, parties, database_clock
):
    """Otherwise it would live on until the database's clock has come so far."""
    database_clock.set_ahead(-HOUR)
    now = datetime.now(UTC)
    with parties.change() as (services, session):
        clients = services.clients
        (secret,) = clients.get_client(session, demo.mapper.id).secrets
        # It would expire within the hour that separates the clocks.
        secret.expires_at = now - timedelta(minutes=30)
        clients.end_secret(session, demo.mapper.id, secret.id, actor=ACTOR, at=now)
        assert secret.ended_at is not None
        expired = clients.update_client(session, demo.post.id, actor=ACTOR, expires_at=now)
        created = clients.create_client(
            session,
            actor=ACTOR,
            id="later",
            name="Later",
            authentication_method="client_secret_post",
            allowed_scopes=["mapper/link"],
        )
        added, _ = clients.add_secret(session, demo.post.id, actor=ACTOR)
        moments = (secret.ended_at, expired.expires_at, created.created_at, added.created_at)
        for moment in moments:
            assert abs(moment - now + timedelta(hours=1)) < timedelta(minutes=1)
    with node(settings_file, FakeClock()) as ahead:
        for endpoint, caller in (("introspect", demo.mapper), ("token", demo.post)):
            form = {"token": "x", "grant_type": "client_credentials"} | caller.form()
            answer = ahead.post(ENDPOINTS[endpoint], data=form, headers=caller.headers())
            assert answer.status_code == 401, answer.text
