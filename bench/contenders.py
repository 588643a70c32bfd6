"""Who takes part in which comparison, and the request that each is sent."""

import base64
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from importlib.util import find_spec
from pathlib import Path

import httpx

from bench import servers
from bench.applications.credentials import CLIENT_ID, CLIENT_SECRET
from bench.load import Request
from bench.parties import SCOPE, Parties
from bench.servers import NotAtHandError, Server

FLOOR = "floor: a bare Flask view"
GUNICORN_FLOOR = "the bare Flask view under gunicorn"
NODE = "node-oidc-provider"
AUDIENCE = "https://mapper.example"
_ISSUED = '"access_token":"'
_ACTIVE = '"active":true'


@dataclass(frozen=True)
class Contender:
    """One line of a table.

    Attributes:
        name: what it is.
        does: what a request makes it do, in a few words.
        server: where it answers.
        request: makes the request anew for each round: some carry the time, or a token that ends.
    """

    name: str
    does: str
    server: Server
    request: Callable[[], Request]


Setting = Callable[[ExitStack, Path], Iterator[Contender]]


@contextmanager
def open_contenders(part: str, directory: Path) -> Iterator[tuple[list[Contender], dict[str, str]]]:
    """Start everything that takes part; yield it, with what is not at hand and why."""
    contenders: list[Contender] = []
    absent: dict[str, str] = {}
    with ExitStack() as running:
        for name, setting in PARTS[part].items():
            folder = directory / part / str(len(contenders) + len(absent))
            folder.mkdir(parents=True)
            try:
                contenders += setting(running, folder)
            except NotAtHandError as reason:
                absent[name] = str(reason)
        yield contenders, absent


def _form(client_id: str, secret: str, **more: str) -> dict[str, str]:
    credentials = {"client_id": client_id, "client_secret": secret}
    return {"grant_type": "client_credentials", **credentials, "scope": SCOPE, **more}


def _basic(client_id: str, secret: str, **more: str) -> dict[str, str]:
    pair = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
    return {"Authorization": f"Basic {pair}", **more}


def _obtain_token(server: Server, path: str, form: Mapping[str, str], **headers: str) -> str:
    answer = httpx.post(f"http://127.0.0.1:{server.port}{path}", data=dict(form), headers=headers)
    token: str = answer.raise_for_status().json()["access_token"]
    return token


def _floor_token(running: ExitStack, folder: Path) -> Iterator[Contender]:
    server = running.enter_context(servers.under_granian("floor", folder))
    request = Request("/token", _form(CLIENT_ID, CLIENT_SECRET), _ISSUED)
    yield Contender(FLOOR, "reads the form, answers JSON; Granian", server, lambda: request)


def _gunicorn_floor_token(running: ExitStack, folder: Path) -> Iterator[Contender]:
    _require_gunicorn()
    server = running.enter_context(servers.under_gunicorn("floor", folder))
    request = Request("/token", _form(CLIENT_ID, CLIENT_SECRET), _ISSUED)
    yield Contender(GUNICORN_FLOOR, "the same; gunicorn sync", server, lambda: request)


def _floor_introspection(running: ExitStack, folder: Path) -> Iterator[Contender]:
    server = running.enter_context(servers.under_granian("floor", folder))
    form = {"token": "t" * 640}
    request = Request("/introspect", form, _ACTIVE, _basic("mapper", CLIENT_SECRET))
    yield Contender(FLOOR, "reads the form, answers JSON; Granian", server, lambda: request)


def _sqlite(running: ExitStack, folder: Path) -> tuple[Server, Parties]:
    return running.enter_context(servers.ours(f"sqlite:///{folder / 'database.sqlite'}", folder))


def _postgresql(running: ExitStack, folder: Path) -> tuple[Server, Parties]:
    return running.enter_context(servers.ours_on_postgresql(folder))


def _our_tokens(server: Server, parties: Parties, database: str) -> Iterator[Contender]:
    form = _form(parties.client_id, parties.client_secret)

    def profiled() -> Request:
        headers = {"timestamp": formatdate(time.time(), usegmt=True), "message_id": "m-1"}
        return Request("/oauth2/client/token", form, _ISSUED, headers, distinct=True)

    plain = token_request(parties)
    name, does = f"authz-server on {database}", "JWT ES256; Granian"
    yield Contender(f"{name}, /oauth2/token", does, server, lambda: plain)
    yield Contender(f"{name}, /oauth2/client/token", does, server, profiled)


def token_request(parties: Parties) -> Request:
    """Return the request for one of our tokens."""
    form = _form(parties.client_id, parties.client_secret)
    return Request("/oauth2/token", form, _ISSUED, distinct=True)


def _our_introspection(server: Server, parties: Parties, database: str) -> Iterator[Contender]:
    def introspection() -> Request:
        form = _form(parties.client_id, parties.client_secret)
        token = _obtain_token(server, "/oauth2/token", form)
        caller = _basic(parties.resource_server_id, parties.resource_server_secret)
        return Request("/oauth2/introspect", {"token": token}, _ACTIVE, caller)

    does = "JWT ES256 verified, revocation looked up; Granian"
    yield Contender(f"authz-server on {database}", does, server, introspection)


def _authlib(tokens: str, *, gunicorn: bool) -> Setting:
    def setting(running: ExitStack, folder: Path) -> Iterator[Contender]:
        if gunicorn:
            _require_gunicorn()
        serve = servers.under_gunicorn if gunicorn else servers.under_granian
        database = f"sqlite:///{folder / 'database.sqlite'}"
        environment = {"BENCH_DATABASE": database, "BENCH_TOKENS": tokens}
        server = running.enter_context(serve("authlib_documented", folder, environment))
        request = Request("/oauth/token", _form(CLIENT_ID, CLIENT_SECRET), '"access_token": "')
        form = "opaque, stored in SQLite" if tokens == "stored" else "JWT ES256, not stored"
        does = f"{form}; {'gunicorn sync' if gunicorn else 'Granian'}"
        yield Contender("Authlib as documented", does, server, lambda: request)

    return setting


def _authlib_introspection(running: ExitStack, folder: Path) -> Iterator[Contender]:
    database = f"sqlite:///{folder / 'database.sqlite'}"
    environment = {"BENCH_DATABASE": database, "BENCH_TOKENS": "stored"}
    server = running.enter_context(servers.under_granian("authlib_documented", folder, environment))

    def introspection() -> Request:
        token = _obtain_token(server, "/oauth/token", _form(CLIENT_ID, CLIENT_SECRET))
        caller = _basic("mapper", CLIENT_SECRET)
        return Request("/oauth/introspect", {"token": token}, '"active": true', caller)

    yield Contender("Authlib as documented", "opaque, from SQLite; Granian", server, introspection)


def _node_token(running: ExitStack, folder: Path) -> Iterator[Contender]:
    server, secret = running.enter_context(servers.node_oidc_provider(folder))
    form = _form(CLIENT_ID, secret, resource=AUDIENCE)
    headers = {"X-Forwarded-Proto": "https"}
    request = Request("/token", form, _ISSUED, headers, distinct=True)
    yield Contender(NODE, "JWT ES256; one process, in memory", server, lambda: request)


def _node_introspection(running: ExitStack, folder: Path) -> Iterator[Contender]:
    server, secret = running.enter_context(servers.node_oidc_provider(folder))
    proxy = {"X-Forwarded-Proto": "https"}

    def introspection() -> Request:
        token = _obtain_token(server, "/token", _form(CLIENT_ID, secret), **proxy)
        caller = _basic("mapper", secret, **proxy)
        return Request("/token/introspection", {"token": token}, _ACTIVE, caller)

    yield Contender(NODE, "opaque, from memory; one process", server, introspection)


def _require_gunicorn() -> None:
    if find_spec("gunicorn") is None:
        raise NotAtHandError("gunicorn is not installed")


#: The parts, each with its settings by name; the floor comes first.
PARTS: Mapping[str, Mapping[str, Setting]] = {
    "token": {
        FLOOR: _floor_token,
        "authz-server on SQLite": lambda r, f: _our_tokens(*_sqlite(r, f), "SQLite"),
        "authz-server on PostgreSQL": lambda r, f: _our_tokens(*_postgresql(r, f), "PostgreSQL"),
        NODE: _node_token,
        "Authlib, JWT": _authlib("jwt", gunicorn=False),
        "Authlib, stored": _authlib("stored", gunicorn=False),
        GUNICORN_FLOOR: _gunicorn_floor_token,
        "Authlib, JWT, gunicorn": _authlib("jwt", gunicorn=True),
        "Authlib, stored, gunicorn": _authlib("stored", gunicorn=True),
    },
    "introspection": {
        FLOOR: _floor_introspection,
        "authz-server on SQLite": lambda r, f: _our_introspection(*_sqlite(r, f), "SQLite"),
        "authz-server on PostgreSQL": lambda r, f: _our_introspection(
            *_postgresql(r, f), "PostgreSQL"
        ),
        NODE: _node_introspection,
        "Authlib": _authlib_introspection,
    },
}
