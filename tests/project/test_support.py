"""The test suite's own foundations: the real servers and the watch over secrets."""

import json
import socket
import threading
import tomllib
from datetime import timedelta
from functools import partial
from itertools import product
from types import SimpleNamespace

import httpx
import psycopg
import pytest
from werkzeug.routing import BaseConverter, Map, Rule

from support.ports import reserve_port
from support.postgresql import PostgresServer
from support.postgresql_access import database_name
from support.raw_http import MalformedAnswerError, RawConnection, exchange
from support.run import send_less
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings
from support.tcp_proxy import TcpProxy
from support.tied_process import is_running


def plain(url: str) -> str:
    return url.replace("postgresql+psycopg", "postgresql")


def test_shared_postgresql_gives_databases_of_ones_own(postgresql):
    first, second = postgresql.create_database(), postgresql.create_database()
    with psycopg.connect(plain(first)) as connection:
        connection.execute("CREATE TABLE only_here (id int)")
    with psycopg.connect(plain(second)) as connection:
        assert connection.execute("SELECT to_regclass('only_here')").fetchone() == (None,)
    postgresql.drop_database(first)
    postgresql.drop_database(second)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(plain(first))


def test_copied_database_has_what_the_template_had(postgresql):
    template = postgresql.create_database()
    with psycopg.connect(plain(template)) as connection:
        connection.execute("CREATE TABLE copied (id int)")
    postgresql.close_database(template)
    copy = postgresql.create_database(database_name(template))
    with psycopg.connect(plain(copy)) as connection:
        assert connection.execute("SELECT to_regclass('copied')").fetchone() == ("copied",)
    postgresql.drop_database(copy)


def test_rows_prepared_under_one_name_belong_to_what_made_them(fill_database, sqlite_url):
    """Two functions with the same name for their rows do not share them."""

    def first(_url, _folder):
        return "first"

    def second(_url, _folder):
        return "second"

    def call(make, url, folder):
        return make(url, folder)

    for _ in range(2):
        for fill in (first, partial(call, first)):
            assert fill_database(sqlite_url, "one name", fill) == "first"
        for fill in (second, partial(call, second)):
            assert fill_database(sqlite_url, "one name", fill) == "second"


@pytest.mark.parametrize("shown", [{}, {"verbose": 1}, {"durations": 0}, {"xmlpath": "file"}])
def test_a_worker_reports_everything_but_passed_phases_that_nothing_shows(shown):
    """A failed setup or teardown always reaches the process that counts it."""
    events = [("logstart", {}), ("logfinish", {}), ("runtest_protocol_complete", {})]
    phases, outcomes = ("setup", "call", "teardown"), ("passed", "failed", "skipped")
    reports = [{"when": when, "outcome": end} for when, end in product(phases, outcomes)]
    events += [("testreport", {"data": report}) for report in reports]
    options, sent = {"verbose": 0, "durations": None, "xmlpath": None} | shown, []
    worker = SimpleNamespace(sendevent=lambda name, **values: sent.append((name, values)))
    manager = SimpleNamespace(get_plugins=lambda: [object(), worker])
    config = SimpleNamespace(
        option=SimpleNamespace(**options),
        getoption=lambda name, _: options[name],
        pluginmanager=manager,
    )
    send_less(config)
    for name, values in events:
        worker.sendevent(name, **values)
    withheld = [each for each in events if each not in sent]
    names = [values["data"]["when"] if values else name for name, values in withheld]
    assert names == ([] if shown else ["logstart", "logfinish", "setup", "teardown"])


class Shouted(BaseConverter):
    def to_url(self, value):
        return value.upper()


def test_rules_that_are_compiled_once_build_the_urls_of_their_own_map():
    """Converters and defaults are those of the rule that is asked."""
    urls = [
        Map([Rule("/a/<each>", endpoint="a", **options)], converters=converters)
        .bind("host")
        .build("a", {"each": "b c", **more})
        for converters in ({}, {"default": Shouted})
        for options in ({}, {"defaults": {"other": "d"}})
        for more in ({}, {"other": "d"})
    ]
    quiet = ["/a/b%20c", "/a/b%20c?other=d", "/a/b%20c", "/a/b%20c"]
    assert urls == [*quiet, "/a/B C", "/a/B C?other=d", "/a/B C", "/a/B C"]


def test_own_server_survives_a_crash_and_a_pause():
    with PostgresServer(durable=True) as server:
        with psycopg.connect(plain(server.url())) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        server.restart(immediate=True)
        assert server.execute("SELECT number FROM kept") == [(7,)]
        with server.paused(), pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(plain(server.url()), connect_timeout=2)
        assert server.execute("SHOW fsync") == [("on",)]
        directory = server.directory
    assert not directory.exists()


def test_cut_connections_are_noticed_by_their_clients():
    with PostgresServer() as server, psycopg.connect(plain(server.url())) as connection:
        server.cut_connections()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_settings_file_says_what_it_was_told(tmp_path):
    path = write_settings(
        tmp_path,
        "sqlite:///x.db",
        {"server": {"port": 1, "trusted_proxies": ["10.0.0.0/8"]}, "logging": None, "é": 'a"\n'},
    )
    tree = tomllib.loads(path.read_text())
    assert tree["server"] == {"port": 1, "trusted_proxies": ["10.0.0.0/8"]}
    assert tree["keys"]["rings"] == {"es256": {"algorithm": "ES256"}}
    assert tree["é"] == 'a"\n'
    assert "logging" not in tree
    assert (tmp_path / "pepper").stat().st_mode & 0o777 == 0o600


def test_proxy_carries_swallows_and_refuses():
    with (
        socket.create_server(("127.0.0.1", reserve_port())) as server,
        TcpProxy(server.getsockname()[1]) as proxy,
    ):
        client = socket.create_connection(("127.0.0.1", proxy.port), 5)
        far_end, _ = server.accept()
        client.sendall(b"there")
        assert far_end.recv(10) == b"there"
        far_end.sendall(b"back")
        assert client.recv(10) == b"back"
        proxy.silence()
        client.sendall(b"lost")
        far_end.settimeout(0.3)
        with pytest.raises(TimeoutError):
            far_end.recv(10)
        proxy.heal()
        with client, far_end, pytest.raises(ConnectionResetError):
            client.recv(10)
        proxy.refuse()
        with (
            pytest.raises(ConnectionResetError),
            socket.create_connection(("127.0.0.1", proxy.port), 5) as refused,
        ):
            refused.recv(10)


def test_raw_client_counts_what_a_server_answers():
    answers = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        b"HTTP/1.1 400 Bad Request\r\nX-A: b\r\n\r\n"
    )
    with socket.create_server(("127.0.0.1", reserve_port())) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                for byte in answers:
                    connection.sendall(bytes([byte]))

        thread = threading.Thread(target=serve)
        thread.start()
        responses = exchange(server.getsockname()[1], b"anything")
        thread.join()
    assert [(each.status, each.body) for each in responses] == [
        (200, b"ok"),
        (200, b"abc"),
        (400, b""),
    ]
    assert responses[2].headers == {"x-a": "b"}


def test_raw_client_complains_of_what_is_no_answer():
    with (
        socket.create_server(("127.0.0.1", reserve_port())) as server,
        RawConnection(server.getsockname()[1]) as client,
    ):
        far_end, _ = server.accept()
        with far_end:
            far_end.sendall(b"oh no\r\n\r\n")
        with pytest.raises(MalformedAnswerError, match="oh no"):
            client.receive()


@pytest.mark.parametrize(
    "output",
    [
        "token=sec/ret+value-of-it",
        "token=sec%2Fret%2Bvalue-of-it&x=1",
        "Basic bWluaXN0cnk6c2VjL3JldCt2YWx1ZS1vZi1pdA==",
        json.dumps({"secret": "sec/ret+value-of-it"}),
    ],
)
def test_watch_finds_a_secret_in_any_spelling_without_repeating_it(output):
    watch = SecretsWatch()
    watch.note_basic("ministry", "sec/ret+value-of-it")
    with pytest.raises(AssertionError, match=r"log: .* in line 2") as complaint:
        watch.verify_absent([("log", f"first line\n{output}")])
    assert "ret" not in str(complaint.value).replace("secret", "")


def test_watch_finds_the_parts_of_a_token_and_nothing_else():
    watch = SecretsWatch()
    watch.note("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhYmNkZWYifQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ", "token")
    assert watch.find("... eyJzdWIiOiJhYmNkZWYifQ ...") == ["token in line 1"]
    assert watch.find("... c2lnbmF0dXJlLXNpZ25hdHVyZQ ...") == ["token in line 1"]
    assert watch.find("jti and kid are no secrets: eyJhbGciOiJub25lIn0") == []


def token_form(credentials):
    return {"grant_type": "client_credentials", "scope": "mapper/link"} | credentials.form()


def test_application_fixtures_give_a_token(client, demo):
    answer = client.post("/oauth2/token", data=token_form(demo.post))
    assert answer.status_code == 200, answer.json
    basic = client.post("/oauth2/token", data=token_form(demo.basic), headers=demo.basic.headers())
    assert basic.status_code == 200, basic.json


def test_parties_made_later_are_known_at_once_and_expire_by_the_clock(client, parties, clock):
    parties.make_resource_server("mapper")
    ministry = parties.make_client("ministry")
    assert client.post("/oauth2/token", data=token_form(ministry)).status_code == 200
    bank = parties.make_client("bank", expires_at=clock() + timedelta(hours=1))
    assert client.post("/oauth2/token", data=token_form(bank)).status_code == 200
    clock.advance(3_601)
    assert client.post("/oauth2/token", data=token_form(bank)).status_code == 401


@pytest.mark.parametrize("unforked", [False, True], ids=["forked", "unforked"])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_live_server_is_back_after_a_power_cut_and_leaves_nothing_behind(
    start_live_server, demo, unforked
):
    server = start_live_server(workers=2, unforked=unforked)
    processes = [server.process_id, *server.worker_process_ids()]
    assert len(processes) == 3
    server.kill()
    assert [each for each in processes if is_running(each)] == []
    server.start()
    answer = httpx.post(f"{server.base_url}/oauth2/token", data=token_form(demo.post))
    assert answer.status_code == 200, answer.text
    processes = [server.process_id, *server.worker_process_ids()]
    assert server.stop() == 0
    assert [each for each in processes if is_running(each)] == []
