"""SIGHUP: changed settings and certificates come into force under load, broken ones do not."""

import json
import os
import signal
import socket
import ssl
import time
from collections.abc import Collection, Iterator
from contextlib import closing
from urllib.parse import urlencode

import httpx
import pytest

from support.databases import DIALECTS, copied_database
from support.edge import ServerFixture, running_edge
from support.load import steady_load
from support.openbao_authority import CertificateAuthority
from support.ports import reserve_port

IN_FORCE = "the new settings are in force"
REFUSED = "the new settings cannot be used"


@pytest.fixture(scope="module", params=["sqlite"])
def edge(request, tmp_path_factory) -> Iterator[ServerFixture]:
    """A server whose settings each test changes, on SQLite unless a test names another database."""
    directory = tmp_path_factory.mktemp("server")
    with (
        copied_database(request, request.param, directory) as url,
        running_edge(directory, url) as edge,
    ):
        yield edge


def lifetime(edge: ServerFixture) -> int:
    """Return how long a new token lives, in seconds."""
    return edge.post("token", edge.form("token")).json()["expires_in"]


def await_again(edge: ServerFixture, text: str, before: str) -> str:
    """Return what the log says beyond `before`, once it holds this text."""
    deadline = time.monotonic() + 60
    while text not in (more := edge.server.log()[len(before) :]):
        assert time.monotonic() < deadline, more
        time.sleep(0.05)
    return more


def await_workers(edge: ServerFixture, count: int = 1, *, others: Collection[int] = ()) -> set[int]:
    """Return the process ids of exactly so many workers, once those of `others` have ended."""
    deadline = time.monotonic() + 60
    while len(found := set(edge.server.worker_process_ids())) != count or not found.isdisjoint(
        others
    ):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def change(edge: ServerFixture, **tables: dict) -> str:
    """Change the settings and return, once they are in force, what the log says of it."""
    before = edge.server.log()
    edge.server.change_settings(**tables)
    return await_again(edge, IN_FORCE, before)


@pytest.fixture
def kept(edge: ServerFixture) -> Iterator[None]:
    """The settings of the next test are those of before, also after a failure."""
    overrides = edge.server.overrides
    yield
    edge.server.overrides = overrides


@pytest.mark.parametrize("edge", DIALECTS, indirect=True)
def test_changed_settings_come_into_force_without_a_lost_request(edge: ServerFixture):
    """And are recorded. Case J117. Case K124."""
    before = edge.audit_trail()
    first = await_workers(edge)
    with steady_load(edge) as load, steady_load(edge, "introspect", clients=1) as other:
        time.sleep(0.3)
        change(edge, tokens={"default_lifetime_seconds": 123}, server={"workers": 2})
        time.sleep(0.5)
    load.require_all_served()
    other.require_all_served()
    assert lifetime(edge) == 123
    await_workers(edge, 2, others=first)
    assert edge.server.is_ready()
    assert edge.token_is_active()
    log = change(edge, tokens={"default_lifetime_seconds": 456}, server={"workers": 1})
    assert "secret" not in log
    assert lifetime(edge) == 456
    records = [json.loads(line) for line in edge.audit_trail()[len(before) :].splitlines()]
    assert {"settings.loaded", "server.started"} <= {each["event"] for each in records}
    deadline = time.monotonic() + 20
    while "server.stopped" not in edge.audit_trail()[len(before) :]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_no_new_connection_meets_the_earlier_settings_once_others_are_in_force(
    edge: ServerFixture,
):
    """A connection that stays open keeps the earlier worker for a while. Case J117."""
    for seconds in (201, 202, 203, 204, 205):
        with socket.create_connection(("127.0.0.1", edge.port)):
            change(edge, tokens={"default_lifetime_seconds": seconds})
            assert [lifetime(edge) for _ in range(20)] == [seconds] * 20


def test_an_address_is_changed_without_a_lost_request(edge: ServerFixture):
    """Case J117."""
    old, new = edge.port, reserve_port()
    health = reserve_port()
    with steady_load(edge) as load:
        time.sleep(0.3)
        change(edge, server={"port": new, "health_port": health})
        edge.port = edge.server.port = new
        edge.server.base_url = f"http://127.0.0.1:{new}"
        edge.server.health_url = f"http://127.0.0.1:{health}"
        with steady_load(edge) as following:
            time.sleep(1)
        load.stop()
    following.require_all_served()
    assert all(set(requester.statuses) == {200} for requester in load.requesters)
    assert all(requester.failures for requester in load.requesters), "the old port still answers"
    assert load.lost() == []
    assert edge.server.is_ready()
    assert edge.token_is_active()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", old))


BROKEN = {
    "unknown-key": ({"server": {"ports": 1}}, "server.ports"),
    "wrong-type": ({"server": {"workers": "two"}}, "server.workers"),
    "out-of-range": ({"server": {"keep_alive_seconds": 0}}, "server.keep_alive_seconds"),
    "contradiction": ({"tokens": {"default_lifetime_seconds": 3_601}}, "default_lifetime_seconds"),
    "no-certificate": (
        {"server": {"tls_certificate": "/nowhere.pem", "tls_private_key": "/nowhere.key"}},
        "/nowhere.pem",
    ),
    "no-database": ({"database": {"url": "sqlite:////nowhere/x.sqlite"}}, "/nowhere"),
    "no-ring": ({"keys": {"default_ring": "other"}}, "default_ring"),
    "no-plugin": ({"plugins": {"enabled": ["nowhere"]}}, "nowhere"),
}


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("name", BROKEN)
def test_broken_settings_leave_the_earlier_ones_in_force_and_are_named(
    edge: ServerFixture, name: str
):
    """Case J117."""
    tables, named = BROKEN[name]
    before, workers = edge.server.log(), await_workers(edge)
    usual = lifetime(edge)
    with steady_load(edge, clients=1) as load:
        edge.server.change_settings(**tables)
        said = await_again(edge, REFUSED, before)
        time.sleep(0.3)
    load.require_all_served()
    (line,) = [each for each in said.splitlines() if REFUSED in each]
    assert named in line
    assert "Traceback" not in said
    assert set(edge.server.worker_process_ids()) == workers
    assert lifetime(edge) == usual
    assert edge.server.is_ready()


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("key", ["port", "health_port"])
def test_an_address_that_is_taken_leaves_the_earlier_settings_in_force(
    edge: ServerFixture, key: str
):
    """Case J117."""
    before = edge.server.log()
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        taken = other.getsockname()[1]
        with steady_load(edge, clients=1) as load:
            edge.server.change_settings(server={key: taken})
            assert str(taken) in await_again(edge, REFUSED, before)
            time.sleep(0.3)
        load.require_all_served()
    assert edge.server.is_ready()


def test_a_file_that_is_no_settings_file_leaves_the_earlier_settings_in_force(edge: ServerFixture):
    """Case J117."""
    before, text = edge.server.log(), edge.server.settings_path.read_text()
    edge.server.settings_path.write_text("[server\nport = 1\n")
    edge.server.send_signal(signal.SIGHUP)
    assert edge.server.settings_path.name in await_again(edge, REFUSED, before)
    assert edge.token_is_active()
    edge.server.settings_path.write_text(text)


@pytest.mark.usefixtures("kept")
def test_workers_that_cannot_serve_with_changed_settings_answer_no_request(edge: ServerFixture):
    """A database that does not answer shows only once the workers have started. Case J117."""
    before, used = edge.server.log(), edge.server.overrides
    nowhere = f"postgresql://nobody@127.0.0.1:{reserve_port()}/nowhere"
    with steady_load(edge) as load, steady_load(edge, "introspect", clients=1) as other:
        edge.server.change_settings(database={"url": nowhere})
        # The new worker asks the database, and asks again.
        await_again(edge, "times in a row", before)
        time.sleep(2)
        edge.server.overrides = used
        edge.server.change_settings()
        await_again(edge, REFUSED, before)
        await_again(edge, IN_FORCE, before)
    load.require_all_served()
    other.require_all_served()
    assert edge.server.is_ready()
    assert edge.token_is_active()


def test_settings_that_change_again_and_again_end_with_the_last(edge: ServerFixture):
    """Case J117."""
    with steady_load(edge) as load:
        for seconds in (101, 102, 103, 104):
            edge.server.change_settings(tokens={"default_lifetime_seconds": seconds})
            time.sleep(0.2)
        deadline = time.monotonic() + 60
        while lifetime(edge) != 104 or len(edge.server.worker_process_ids()) != 1:
            assert time.monotonic() < deadline, edge.server.log()
            time.sleep(0.1)
    load.require_all_served()
    assert edge.server.is_ready()


def test_a_server_that_is_told_to_end_while_it_reloads_ends(edge: ServerFixture):
    """Case J116, Case J117."""
    edge.server.change_settings(tokens={"default_lifetime_seconds": 105})
    assert edge.server.stop() == 0
    edge.server.start()
    assert lifetime(edge) == 105


def test_a_new_certificate_is_shown_without_a_lost_request(sqlite_url, tmp_path):
    """Case J117."""
    authority = CertificateAuthority(tmp_path)
    certified = authority.certify("localhost")
    trust = ssl.create_default_context(cafile=str(authority.certificate_path))
    table = {
        "tls_certificate": str(certified.certificate_path),
        "tls_private_key": str(certified.private_key_path),
    }

    def shown(port: int) -> int:
        plain = socket.create_connection(("127.0.0.1", port), 10)
        plain.settimeout(60)
        with trust.wrap_socket(plain, server_hostname="localhost") as secured:
            return int(secured.getpeercert()["serialNumber"], 16)

    with running_edge(tmp_path, sqlite_url, server=table, trust=trust) as edge:
        url, form = f"https://127.0.0.1:{edge.port}/oauth2/token", edge.form("token")
        first, before = shown(edge.port), edge.server.log()
        statuses, serials = set(), set()
        authority.certify("localhost")
        edge.server.send_signal(signal.SIGHUP)
        with httpx.Client(verify=trust) as kept:
            ends = time.monotonic() + 60
            while IN_FORCE not in edge.server.log()[len(before) :]:
                assert time.monotonic() < ends
                answer = kept.post(url, content=urlencode(form), headers=edge.headers("token"))
                statuses.add(answer.status_code)
                serials.add(shown(edge.port))
            assert statuses == {200}
            last = shown(edge.port)
            assert first != last
            assert serials <= {first, last}
        before = edge.server.log()
        certified.certificate_path.write_text("no certificate")
        edge.server.send_signal(signal.SIGHUP)
        assert "server.tls_certificate" in await_again(edge, REFUSED, before)
        assert shown(edge.port) == last
        # A worker that replaces another one serves what is in force, not what the file holds.
        (worker,) = await_workers(edge)
        os.kill(worker, signal.SIGKILL)
        await_workers(edge, others=[worker])
        assert shown(edge.port) == last
