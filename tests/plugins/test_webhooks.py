"""The bundled plugin that sends events: signed, retried, and never lost."""

import base64
import hashlib
import hmac
import json
import os
import sqlite3
import threading
import time
import uuid
from contextlib import closing
from pathlib import Path

import jwt
import pytest
from click.testing import CliRunner

from authz_server.audit.events import ClientChanged, ServerStarted, ServerStopped
from authz_server.metrics.events import PluginFailed
from authz_server.plugin_manager import PluginError
from plugins.webhooks.plugin import Webhooks
from plugins.webhooks.queue import DeliveryQueue, QueueFullError
from support.parties import ACTOR
from support.scripted_server import ScriptedServer, answer_with
from support.settings_file import write_secret
from support.stage import ApplicationFixture
from support.webhooks import eventually, message, stored

KEY = b"a key of a receiver, long enough"


class Receiver:
    """A receiver that answers as `script` says; `messages` holds headers and body of each."""

    def __init__(self):
        self.script = answer_with(b"")
        self.server = ScriptedServer(self._respond)

    def _respond(self, connection, request):
        self.script(connection, request)
        return False

    @property
    def messages(self):
        found = []
        for request in self.server.requests:
            head, _, body = request.partition(b"\r\n\r\n")
            lines = (line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
            found.append(({name.lower(): value for name, value in lines}, body))
        return found

    def of(self, name):
        return [body for _, body in self.messages if json.loads(body)["type"] == name]


@pytest.fixture
def receiver():
    receiver = Receiver()
    with receiver.server:
        yield receiver


@pytest.fixture
def quick(monkeypatch):
    """Retries after tenths of a second."""
    monkeypatch.setattr("plugins.webhooks.plugin.FIRST_RETRY_SECONDS", 0.1)
    monkeypatch.setattr("plugins.webhooks.plugin.LONGEST_RETRY_SECONDS", 0.2)
    monkeypatch.setattr("plugins.webhooks.plugin.POLL_SECONDS", 0.05)


@pytest.fixture
def make_site(database_url, tmp_path):
    sites = []

    def make(*tables, **settings):
        write_secret(tmp_path / "key", KEY.decode())
        receivers = dict(zip(("siem", "other"), tables, strict=False))
        own = {"queue": str(tmp_path / "webhooks.db"), "receivers": receivers} | settings
        site = ApplicationFixture(
            tmp_path,
            database_url,
            outbound={"plain_http": True, "timeout_seconds": 1},
            plugins={"enabled": ["webhooks"], "settings": {"webhooks": own}},
        )
        sites.append(site)
        site.services.notify(started())
        return site

    yield make
    for site in sites:
        site.services.notify(ServerStopped(process_id=1))
        site.close()


@pytest.fixture
def failures(monkeypatch):
    """The failures that the plugin reports to the metrics."""
    reported = []

    def report(_, *failure):
        reported.append(PluginFailed(*failure))

    monkeypatch.setattr(
        "authz_server.assembly.plugin_services.PluginServices.report_failure", report
    )
    return reported


def change(site):
    """Make a change that is recorded, as a command or the admin API does."""
    with site.services.transaction() as session:
        name = f"client-{uuid.uuid4().hex}"
        site.services.clients.create_client(
            session, actor=ACTOR, id=name, name=name, allowed_scopes=["basic-jwt/read"]
        )


def started():
    return ServerStarted(version="1", issuer="https://authz.example", process_id=1)


def table(receiver, *events, **changes):
    url = f"{receiver.server.address}/hook"
    return {"url": url, "events": list(events), "secret": {"file": "key"}} | changes


def test_an_event_is_sent_signed_as_standard_webhooks_says(make_site, receiver, tmp_path):
    site = make_site(table(receiver, "client.*", "token.issued"))
    change(site)
    eventually(lambda: receiver.of("client.changed"))
    headers, body = receiver.messages[0]
    message_id, moment = headers["webhook-id"], headers["webhook-timestamp"]
    signed = f"{message_id}.{moment}.".encode() + body
    expected = base64.b64encode(hmac.digest(KEY, signed, "sha256")).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["content-type"] == "application/json"
    document = json.loads(body)
    assert document["type"] == "client.changed"
    assert document["data"]["event"] == "client.changed"
    assert abs(int(moment) - time.time()) < 60
    site.token()
    eventually(lambda: receiver.of("token.issued"))
    assert "access_token" not in receiver.of("token.issued")[0].decode()
    eventually(lambda: not stored(tmp_path, "id"))
    assert not receiver.of("server.started"), "the receiver did not ask for it"


def test_a_key_ring_signs_instead_of_a_secret(make_site, receiver):
    settings = table(receiver, "client.*", signing_ring="")
    del settings["secret"]
    site = make_site(settings)
    change(site)
    eventually(lambda: receiver.messages)
    headers, body = receiver.messages[0]
    token = headers["webhook-token"]
    assert jwt.get_unverified_header(token)["typ"] == "webhook+jwt"
    keys = site.client.get("/.well-known/jwks.json").get_json()["keys"]
    (key,) = (key for key in keys if key["kid"] == jwt.get_unverified_header(token)["kid"])
    claims = jwt.decode(token, jwt.PyJWK(key), ["ES256"], options={"verify_iat": False})
    assert claims["jti"] == headers["webhook-id"]
    assert claims["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert site.introspect(token) == {"active": False}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "script",
    [
        answer_with(b"", status=500),
        answer_with(b"", status=429),
        answer_with(b"", status=302, extra="Location: http://127.0.0.1:1/inward\r\n"),
        answer_with(b"x" * 10_000_000),
        lambda connection, _: connection.close(),
        lambda *_: time.sleep(1.5),
    ],
    ids=["500", "full", "redirect inward", "10 MB", "closed", "slow"],
)
def test_an_event_that_is_not_taken_is_sent_again_until_it_is(
    make_site, receiver, tmp_path, script, caplog
):
    caplog.set_level("INFO", "authz_server")
    receiver.script = script
    site = make_site(table(receiver, "client.*"))
    began = time.monotonic()
    change(site)
    site.token()
    assert time.monotonic() - began < 1, "a receiver delays no request"
    eventually(lambda: "siem accepts no webhooks" in caplog.text)
    eventually(lambda: stored(tmp_path, "attempts")[0][0] >= 1)
    receiver.script = answer_with(b"")
    eventually(lambda: not stored(tmp_path, "id"))
    ids = {headers["webhook-id"] for headers, _ in receiver.messages}
    assert len(ids) <= 3, "each attempt has the same id"
    eventually(lambda: "accepts webhooks again" in caplog.text)


@pytest.mark.usefixtures("quick")
def test_a_slow_receiver_delays_no_other(make_site, receiver):
    released = threading.Event()
    slow = Receiver()
    slow.script = lambda *_: released.wait(10)
    with slow.server:
        site = make_site(table(slow, "client.*"), table(receiver, "client.*"))
        change(site)
        eventually(lambda: receiver.messages, 1)
        released.set()


@pytest.mark.usefixtures("quick")
def test_an_event_given_up_stays_until_an_operator_retries_it(
    make_site, receiver, tmp_path, caplog, failures
):
    receiver.script = answer_with(b"", status=410)
    site = make_site(table(receiver, "client.*"))
    change(site)
    eventually(lambda: (1,) in stored(tmp_path, "is_dead"))
    assert "is not delivered to siem: the answer has status 410" in caplog.text
    eventually(lambda: PluginFailed("webhooks", "event_happened", "undelivered") in failures)
    (command,) = (
        part for _, part in site.services.plugins.registered("register_commands", lambda each: each)
    )
    run = CliRunner()
    listed = json.loads(run.invoke(command, ["list", "--json"]).output)
    assert listed["given_up"][0]["event"] == "client.changed"
    assert "were given up" in run.invoke(command, ["list"]).output
    assert run.invoke(command, ["retry", "nobody"]).exit_code == 1
    receiver.script = answer_with(b"")
    assert "due now" in run.invoke(command, ["retry", "siem"]).output
    eventually(lambda: not stored(tmp_path, "id"))
    assert run.invoke(command, ["list"]).output == "No event waits.\n"


def test_a_receiver_with_a_full_queue_takes_no_event_from_another(
    make_site, receiver, tmp_path, caplog, failures
):
    other = Receiver()
    receiver.script = answer_with(b"", status=500)
    queue = DeliveryQueue(tmp_path / "webhooks.db", 10)
    for number in range(10):
        queue.add(message(["siem"], f"msg_{number}"))
    with pytest.raises(QueueFullError, match="10 events wait for siem"):
        queue.add(message(["siem", "gone"], "msg_10"))
    with other.server:
        site = make_site(
            table(receiver, "client.*", "server.started"),
            table(other, "client.*"),
            maximum_queued=10,
        )
        change(site)
        eventually(lambda: other.of("client.changed"))
        eventually(lambda: "events are lost for siem: its queue is full" in caplog.text)
    assert stored(tmp_path, "receiver").count(("siem",)) == 10
    assert PluginFailed("webhooks", "event_happened", "lost") in failures
    assert site.records()[-1]["event"] == "client.changed", "the audit log has it"


@pytest.mark.usefixtures("quick")
def test_a_file_that_another_process_locks_delays_no_request(make_site, receiver, tmp_path):
    site = make_site(table(receiver, "client.*"))
    change(site)
    eventually(lambda: receiver.messages)
    eventually(lambda: not stored(tmp_path, "id"))
    before = len(receiver.messages)
    with closing(sqlite3.connect(tmp_path / "webhooks.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        event = ClientChanged(actor=ACTOR, client_id="c", action="client.created")
        began = time.monotonic()
        for _ in range(50):
            site.services.notify(event)
        assert time.monotonic() - began < 1
        assert len(receiver.messages) == before
        other.execute("ROLLBACK")
    eventually(lambda: len(receiver.messages) == before + 50)
    ids = [json.loads(body)["data"]["client_id"] for _, body in receiver.messages]
    assert ids[before:] == ["c"] * 50


def test_events_that_cannot_be_written_are_held_within_a_limit(
    make_site, receiver, tmp_path, monkeypatch, caplog
):
    """Neither the queue nor the file of the process can be used at first."""
    monkeypatch.setattr("plugins.webhooks.inbox.MAXIMUM_HELD", 1)
    monkeypatch.setattr("plugins.webhooks.inbox.MAXIMUM_BYTES", 10)
    (tmp_path / "webhooks.db").mkdir()
    site = make_site(table(receiver, "client.*"))
    change(site)
    assert "QueueFullError" not in caplog.text
    change(site)
    assert "1 events wait in memory: 10 bytes wait to be stored" in caplog.text
    (tmp_path / "webhooks.db").rmdir()
    site.services.notify(ServerStopped(process_id=1))
    eventually(lambda: len(receiver.messages) + len(stored(tmp_path, "id")) >= 1)


def test_events_are_stored_when_the_folder_of_the_files_cannot_be_made(
    make_site, receiver, tmp_path, caplog
):
    (tmp_path / "webhooks.db.incoming").write_text("a file")
    site = make_site(table(receiver, "client.*"))
    change(site)
    eventually(lambda: receiver.of("client.changed"))
    assert "webhooks are held in memory until they are stored" in caplog.text


def test_the_end_of_the_server_closes_the_files_of_the_queue(make_site, receiver, tmp_path):
    def files():
        links = [os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()]
        return [link for link in links if link.startswith(f"{tmp_path}/webhooks.db")]

    site = make_site(table(receiver, "client.*"), table(receiver, "client.*"))
    change(site)
    eventually(lambda: receiver.messages)
    assert files()
    site.services.notify(ServerStopped(process_id=1))
    eventually(lambda: files() == [])


@pytest.mark.usefixtures("quick")
def test_a_fault_ends_no_sender(make_site, receiver, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("a fault")

    site = make_site(table(receiver, "client.*"))
    with monkeypatch.context() as patch:
        patch.setattr("plugins.webhooks.receivers.Receiver.send", fail)
        change(site)
        eventually(lambda: "webhooks are not sent to siem at present" in caplog.text)
    change(site)
    eventually(lambda: receiver.messages)


def test_a_disk_that_cannot_be_written_refuses_no_request(make_site, receiver, tmp_path, caplog):
    (tmp_path / "webhooks.db").mkdir()
    site = make_site(table(receiver, "token.issued"))
    assert site.token()
    eventually(lambda: "the queue of webhooks cannot be used" in caplog.text)
    (tmp_path / "webhooks.db").rmdir()
    eventually(lambda: receiver.of("token.issued"))


RIGHT = {"url": "https://siem.example", "events": ["client.*"], "signing_ring": ""}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"queue": "webhooks.db", "receivers": {"siem": RIGHT}},
        {"queue": "/no/such/folder/webhooks.db", "receivers": {"siem": RIGHT}},
        {"queue": "/tmp/w.db"},
        {"queue": "/tmp/w.db", "receivers": {}},
        {"queue": "/tmp/w.db", "receivers": {"siem": RIGHT}, "retry_hours": 0},
        {"queue": "/tmp/w.db", "receivers": {"siem": RIGHT | {"url": "ftp://x"}}},
        {"queue": "/tmp/w.db", "receivers": {"siem": RIGHT | {"events": []}}},
        {"queue": "/tmp/w.db", "receivers": {"siem": RIGHT | {"secret": "in the open"}}},
        {"queue": "/tmp/w.db", "receivers": {"siem": {"url": "https://x", "events": ["a"]}}},
        {"queue": "/tmp/w.db", "receivers": {"siem": RIGHT | {"event": ["a"]}}},
        {"queue": "/tmp/w.db", "receivers": {"siem": RIGHT | {"url": "https://x.example:70000"}}},
        {"queue": "/tmp/w.db", "receivers": {"siem": RIGHT | {"ca_file": "/dev/null"}}},
    ],
    ids=str,
)
def test_settings_that_cannot_be_used_are_refused(settings):
    with pytest.raises(ValueError, match=r"\S"):
        Webhooks().start(settings, None)


def test_a_short_secret_stops_the_start(make_site, receiver, tmp_path):
    write_secret(tmp_path / "short", "too short")
    with pytest.raises(PluginError, match="at least 24 bytes"):
        make_site(table(receiver, "client.*", secret={"file": "short"}))
