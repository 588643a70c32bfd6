"""The application under other WSGI servers, started by the lines of docs/operations.md."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self
from urllib.parse import urlencode

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy import select

from authz_server.assembly.operator import operator_services
from authz_server.key_rings.models import KeyNode
from authz_server.logs import ACCESS_LOGGER
from authz_server.settings import load_settings
from support.databases import copied_database
from support.live_server import run_cli
from support.parties import Credentials, Parties, make_demo
from support.raw_http import RawResponse, exchange
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings
from support.wsgi_servers import Kind, OtherServer

FORM_TYPE = "application/x-www-form-urlencoded"
TOKEN, INTROSPECT, REVOKE = "/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"
SCOPE = {"grant_type": "client_credentials", "scope": "mapper/link"}
# The trusted proxy is this machine. The client behind it, and what the client would like to be:
CLIENT, FORGED = "198.51.100.7", "203.0.113.9"
KNOWN_WITHIN_SECONDS = 2.0
ENDS_WITHIN_SECONDS = 8.0

SYNC = ("--worker-class gthread --threads 8", "--worker-class sync")
KINDS = {
    "gunicorn": Kind("gunicorn"),
    "gunicorn-preload": Kind("gunicorn", added="--preload"),
    "gunicorn-sync": Kind("gunicorn", replaced=SYNC),
    "gunicorn-sync-preload": Kind("gunicorn", added="--preload", replaced=SYNC),
    "uwsgi": Kind("uWSGI"),
    "uwsgi-lazy-apps": Kind("uWSGI", added="lazy-apps = true\n"),
    "waitress": Kind("waitress", ending=signal.SIGINT),
    "mod_wsgi": Kind("mod_wsgi", ending=signal.SIGWINCH),
}
#: Ends of a chunked body that the application refuses; the other servers refuse them themselves.
_BROKEN_ENDS = {"gunicorn": (b"zz\r\n", b"0\r\nno field\r\n\r\n"), "uWSGI": (b"-1\r\n",)}
CASES = [(name, "sqlite") for name in KINDS] + [("uwsgi", "postgresql")]


class Installation:
    """A folder with settings, keys and parties, and one server after the other that runs on it."""

    def __init__(self, directory: Path, database_url: str) -> None:
        self.directory = directory
        self.watch = SecretsWatch()
        changed = {"server": {"trusted_proxies": ["127.0.0.1"]}, "logging": {"access": True}}
        self.settings_path = write_settings(directory, database_url, changed)
        self.settings = load_settings(self.settings_path)
        parties = Parties(self.settings, self.watch)
        parties.create_first_keys()
        self.demo = make_demo(parties)

    def audit_records(self, event: str) -> list[dict]:
        """Return the audit records of one event."""
        lines = (self.directory / "audit.jsonl").read_text().splitlines()
        return [record for record in map(json.loads, lines) if record["event"] == event]

    def access_lines(self, request_id: str) -> list[dict]:
        """Return the lines of the access log about one request; Apache writes more before each."""
        logs = "".join(log.read_text(errors="replace") for log in self.directory.glob("*.log"))
        lines = [each for each in logs.splitlines() if request_id in each and ACCESS_LOGGER in each]
        return [json.loads(each[each.index("{") :]) for each in lines]

    def process_ids(self, event: str) -> list[int]:
        """Return the processes that recorded their start or end, in the order of their ids."""
        return sorted(record["process_id"] for record in self.audit_records(event))

    def reporting_process_ids(self) -> list[int]:
        """Return the processes whose background work has reported to the database."""
        with operator_services(self.settings) as services, services.database.reading() as session:
            nodes = session.scalars(select(KeyNode.node)).all()
        return sorted(int(node.split("/")[-2]) for node in nodes)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A folder that other users can reach, which pytest's own are not."""
    with TemporaryDirectory(prefix="authz-server-wsgi-") as name:
        yield Path(name)


@pytest.fixture
def installation(request, dialect, directory) -> Iterator[Installation]:
    """An installation of this test alone; what its server wrote holds no secret."""
    with copied_database(request, dialect, directory) as url:
        installation = Installation(directory, url)
        yield installation
        logs = [*directory.glob("*.log"), directory / "audit.jsonl"]
        written = [(log.name, log.read_text(errors="replace")) for log in logs if log.exists()]
        installation.watch.verify_absent(written)


class Talk:
    """What a client, a resource server and a stranger say to a server."""

    def __init__(self, server: OtherServer, installation: Installation) -> None:
        self.server = server
        self.installation = installation
        self.demo = installation.demo
        self.http = httpx.Client(base_url=server.base_url, timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def post(self, path: str, caller: Credentials, form: dict, **headers: str) -> httpx.Response:
        """Post a form as one of the parties."""
        self.installation.watch.note_form(form)
        answer = self.http.post(path, data=form | caller.form(), headers=caller.headers() | headers)
        if answer.headers.get("content-type") == "application/json":
            self.installation.watch.note_answer(answer.json())
        return answer

    def new_token(self, caller: Credentials) -> str:
        """Return a token of that client."""
        answer = self.post(TOKEN, caller, SCOPE)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]

    def is_active(self, token: str) -> bool:
        """Ask as the resource server whether the token counts."""
        answer = self.post(INTROSPECT, self.demo.mapper, {"token": token})
        assert answer.status_code == 200, answer.text
        return answer.json()["active"]

    def send_chunked(
        self, *, end: bytes = b"0\r\n\r\n", coding: str = "chunked"
    ) -> list[RawResponse]:
        """Ask for a token with a body in two chunks and this end; return the answers."""
        body = urlencode(SCOPE | self.demo.post.form()).encode()
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:10], body[10:]))
        return exchange(
            self.server.port, _head(TOKEN, f"Transfer-Encoding: {coding}") + chunks + end
        )

    def status_at(self, path: str, host: str = "Host: localhost") -> int:
        """Ask for a token at a path, which httpx would resolve; return the status."""
        body = urlencode(SCOPE | self.demo.post.form()).encode()
        head = _head(path, f"Content-Length: {len(body)}", host)
        return exchange(self.server.port, head + body)[0].status

    def address_recorded_for(self, **headers: str) -> str:
        """Return the address that the audit trail has of a refused request with these headers."""
        wrong = Credentials("stranger", "wrong", "client_secret_post")
        answer = self.post(TOKEN, wrong, SCOPE, **headers)
        records = self.installation.audit_records("token.refused")
        request_id = answer.headers["x-request-id"]
        (record,) = [each for each in records if each["request_id"] == request_id]
        return record["source_address"]

    def message_id_answered_to(self, name: str) -> str | None:
        """Return the message id in the answer to a request that has it in a header of this name."""
        headers = {name: "20260101-0001", "timestamp": _now()}
        answer = self.post("/oauth2/client/token", self.demo.post, SCOPE, **headers)
        assert answer.status_code == 200, answer.text
        return answer.headers.get("message_id")


def _head(path: str, framing: str, host: str = "Host: localhost") -> bytes:
    lines = (f"POST {path} HTTP/1.1", host, f"Content-Type: {FORM_TYPE}", framing)
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def _now() -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())


def tokens_are_issued_introspected_and_revoked(talk: Talk) -> None:
    for caller in (talk.demo.post, talk.demo.basic):
        token = talk.new_token(caller)
        assert talk.is_active(token)
        assert talk.post(REVOKE, caller, {"token": token}).status_code == 200
        # Two processes serve: neither may answer from what it remembers.
        assert [talk.is_active(token) for _ in range(4)] == [False] * 4


def refusals_are_those_of_serve(talk: Talk) -> None:
    for caller in (talk.demo.post, talk.demo.basic):
        wrong = Credentials(caller.id, "wrong-secret", caller.method)
        answer = talk.post(TOKEN, wrong, SCOPE)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    wrong = Credentials("mapper", "wrong-secret", "client_secret_basic")
    answer = talk.post(INTROSPECT, wrong, {"token": "unknown"})
    assert answer.headers["www-authenticate"].startswith("Basic")
    for path in ("//oauth2/token", "/oauth2%2Ftoken", "/oauth2/./token", "/x/../oauth2/token"):
        assert talk.status_at(path) == 404, path
    answer = talk.http.get(TOKEN)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert talk.status_at(TOKEN.removeprefix("/")) in {400, 404}
    assert talk.status_at(f"http://localhost{TOKEN}") == 200
    for host in ("X-Host: localhost", "Host: a@b", "Host: a\r\nHost: a"):
        assert talk.status_at(TOKEN, host) == 400, host
    for coding in ("identity", "x", "chunked;q=1"):
        (answer,) = talk.send_chunked(coding=coding)[:1]
        assert 400 <= answer.status <= 501, (coding, answer)


def messages_that_are_none_are_no_faults(talk: Talk) -> None:
    for message in (b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x00\r\n\r\n", b" \r\n\r\n"):
        address = ("127.0.0.1", talk.server.port)
        with socket.create_connection(address, 5) as connection, suppress(ConnectionResetError):
            connection.sendall(message)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass
    assert talk.http.get("/.well-known/jwks.json").status_code == 200
    assert "Traceback" not in talk.server.log()


def parallel_requests_are_all_answered(talk: Talk) -> None:
    with ThreadPoolExecutor(20) as pool:
        issued = list(pool.map(lambda _: talk.new_token(talk.demo.basic), range(20)))
    assert len(set(issued)) == 20


def the_command_line_s_client_is_known(talk: Talk) -> None:
    command = ("client", "create", "late", "--name", "Late", "--scope", "mapper/link")
    # A process of its own, for the time that it takes: uWSGI ends OpenSSL before the exit
    # functions, which store the last uses over connections that are open by then.
    made = json.loads(run_cli(*command, "--json", config=talk.installation.settings_path).stdout)
    late = Credentials("late", made["secret"], "client_secret_post")
    talk.installation.watch.note_basic(late.id, late.secret)
    deadline = time.monotonic() + KNOWN_WITHIN_SECONDS
    # Two processes serve: in a row, both know it.
    while {talk.post(TOKEN, late, SCOPE).status_code for _ in range(4)} != {200}:
        assert time.monotonic() < deadline


def every_process_does_its_background_work(talk: Talk, processes: int) -> None:
    deadline = time.monotonic() + 60
    while len(talk.installation.reporting_process_ids()) < processes:
        assert time.monotonic() < deadline, talk.installation.reporting_process_ids()
        time.sleep(0.1)
    started = talk.installation.process_ids("server.started")
    assert talk.installation.reporting_process_ids() == started
    assert len(started) == processes


def headers_pass_as_documented(talk: Talk) -> None:
    name = talk.server.kind.name
    forwarded = {"X-Forwarded-For": CLIENT}
    assert talk.address_recorded_for(**forwarded) == CLIENT
    address = talk.address_recorded_for(**forwarded, X_Forwarded_For=FORGED)
    assert address == (FORGED if name == "uWSGI" else CLIENT)
    assert talk.message_id_answered_to("Message-Id") == "20260101-0001"
    passes = name in {"gunicorn", "uWSGI"}
    assert talk.message_id_answered_to("message_id") == ("20260101-0001" if passes else None)


def each_request_has_a_line_in_the_access_log(talk: Talk) -> None:
    forwarded = {"X-Forwarded-For": CLIENT}
    for answer, client_id in (
        (talk.post(TOKEN, talk.demo.basic, SCOPE, **forwarded), talk.demo.basic.id),
        (talk.http.get("/nowhere?a=b", headers=forwarded), ""),
    ):
        (line,) = talk.installation.access_lines(answer.headers["x-request-id"])
        assert line["status"] == answer.status_code
        assert line["path"] == answer.request.url.path
        assert (line["client_id"], line["source_address"]) == (client_id, CLIENT)


def every_process_counts_what_it_does(talk: Talk) -> None:
    started = set(talk.installation.process_ids("server.started"))
    files = talk.server.metrics.glob("counter_*.db")
    assert started <= {int(file.stem.rpartition("_")[2]) for file in files}
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(talk.server.metrics))
    issued = talk.installation.audit_records("token.issued")
    counted = [
        registry.get_sample_value(
            "authz_server_requests_total", {"endpoint": endpoint, "outcome": "ok"}
        )
        for endpoint in ("token", "client/token")
    ]
    assert sum(filter(None, counted)) == len(issued) > 0


def chunked_bodies_are_read_and_broken_ones_refused(talk: Talk) -> None:
    answer = talk.send_chunked()[0]
    talk.installation.watch.note_answer(json.loads(answer.body))
    assert answer.status == 200, answer
    for end in _BROKEN_ENDS.get(talk.server.kind.name, ()):
        answers = talk.send_chunked(end=end)
        assert [each.status for each in answers] == [400], (end, answers)
        assert json.loads(answers[0].body)["error"] == "invalid_request"


@pytest.mark.parametrize(("name", "dialect"), CASES)
def test_a_server_serves_as_documented(name, installation):
    processes = 1 if name == "waitress" else 2
    with OtherServer(KINDS[name], installation.directory) as server:
        server.await_answer()
        with Talk(server, installation) as talk:
            tokens_are_issued_introspected_and_revoked(talk)
            refusals_are_those_of_serve(talk)
            messages_that_are_none_are_no_faults(talk)
            parallel_requests_are_all_answered(talk)
            headers_pass_as_documented(talk)
            chunked_bodies_are_read_and_broken_ones_refused(talk)
            the_command_line_s_client_is_known(talk)
            each_request_has_a_line_in_the_access_log(talk)
            every_process_does_its_background_work(talk, processes)
            every_process_counts_what_it_does(talk)
        assert server.stop() < ENDS_WITHIN_SECONDS
        started = installation.process_ids("server.started")
        assert installation.process_ids("server.stopped") == started
        assert installation.reporting_process_ids() == []


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_uwsgi_without_threads_refuses_to_start(installation):
    kind = Kind("uWSGI", replaced=("threads = 8\nenable-threads = true\n", ""))
    with OtherServer(kind, installation.directory) as server:
        assert server.await_end() != 0
        assert "set enable-threads = true (--enable-threads)" in server.log()


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_uwsgi_behind_a_proxy_that_may_pass_underscores_refuses_to_start(installation):
    """Case I100."""
    declared = "env = AUTHZ_HEADER_NAMES_WITH_UNDERSCORE=dropped\n"
    kind = Kind("uWSGI", replaced=(declared, ""))
    with OtherServer(kind, installation.directory) as server:
        assert server.await_end() != 0
        assert declared.strip() in server.log()


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_apache_without_the_authorization_line_refuses_basic(installation):
    kind = Kind("mod_wsgi", replaced=("WSGIPassAuthorization On\n", ""))
    with OtherServer(kind, installation.directory) as server:
        server.await_answer()
        with Talk(server, installation) as talk:
            assert talk.post(TOKEN, talk.demo.basic, SCOPE).status_code == 401
            assert talk.post(TOKEN, talk.demo.post, SCOPE).status_code == 200
