"""The contenders: ours, the floors below it and Authlib as documented, with their requests."""

import base64
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

import httpx

from authz_server.assembly import Services
from bench import servers
from bench.applications.credentials import CLIENT_ID, CLIENT_SECRET
from bench.load import Request
from bench.registered import SCOPE, Registered
from bench.servers import NotAtHandError, Server

BARE_WSGI = "bare WSGI application"
BARE_FLASK = "bare Flask view"
OURS = "authz-server"
ISSUED = '"access_token":"'
ACTIVE = '"active":true'


@dataclass(frozen=True)
class Contender:
    """One line of a table.

    Attributes:
        name: unique in its table.
        does: the work of one request, in a few words.
        server: where it answers.
        request: makes the request for each round: some carry the time, or a token that ends.
        compiles_just_in_time: whether it needs the long warm-up.
        bases: the contenders that it is compared with besides the usual ones, by their name in the
            result.
    """

    name: str
    does: str
    server: Server
    request: Callable[[], Request]
    compiles_just_in_time: bool = False
    bases: Mapping[str, str] = field(default_factory=dict)


Setting = Callable[[ExitStack, Path], Iterator[Contender]]


@contextmanager
def open_contenders(
    settings: Mapping[str, Setting], directory: Path
) -> Iterator[tuple[list[Contender], dict[str, str]]]:
    """Start everything that takes part; yield it, with what is not at hand and why.

    Raises:
        NotAtHandError: authz-server itself did not start.
    """
    contenders: list[Contender] = []
    absent: dict[str, str] = {}
    with ExitStack() as running:
        for number, (name, setting) in enumerate(settings.items()):
            folder = directory / str(number)
            folder.mkdir(parents=True)
            print(f"  starting {name}", flush=True)
            try:
                contenders += setting(running, folder)
            except NotAtHandError as reason:
                if name.startswith(OURS):
                    raise
                absent[name] = str(reason)
        yield contenders, absent


def token_form(client_id: str, secret: str, **more: str) -> dict[str, str]:
    """Return the form that asks for a token."""
    credentials = {"client_id": client_id, "client_secret": secret}
    return {"grant_type": "client_credentials", **credentials, "scope": SCOPE, **more}


def basic(client_id: str, secret: str, **more: str) -> dict[str, str]:
    """Return the headers of a caller that authenticates by Basic."""
    pair = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
    return {"Authorization": f"Basic {pair}", **more}


def obtain_token(server: Server, path: str, form: Mapping[str, str], **headers: str) -> str:
    """Return a new token."""
    url = f"http://127.0.0.1:{server.port}{path}"
    answer = httpx.post(url, data=dict(form), headers=headers, timeout=30)
    token: str = answer.raise_for_status().json()["access_token"]
    return token


def floor(application: str, endpoint: str, *, threads: int | None = 1, workers: int = 1) -> Setting:
    """Return one of the floors.

    Args:
        application: ``bare_wsgi`` or ``bare_flask``.
        endpoint: ``token`` or ``introspect``.
        threads: of Granian; None: its default.
        workers: its processes.
    """
    names = {"bare_wsgi": BARE_WSGI, "bare_flask": BARE_FLASK}
    work = {"bare_wsgi": "reads the body, answers bytes", "bare_flask": "form in, JSON out"}
    requests = {
        "token": Request("/token", token_form(CLIENT_ID, CLIENT_SECRET), ISSUED),
        "introspect": Request(
            "/introspect", {"token": "t" * 640}, ACTIVE, basic("mapper", CLIENT_SECRET)
        ),
    }
    variant = (", default threads" if threads is None else "") + _with_workers(workers)

    def setting(running: ExitStack, folder: Path) -> Iterator[Contender]:
        serving = servers.under_granian(application, folder, threads=threads, workers=workers)
        server = running.enter_context(serving)
        does = f"{work[application]}; Granian"
        yield Contender(names[application] + variant, does, server, lambda: requests[endpoint])

    return setting


def _with_workers(workers: int) -> str:
    return "" if workers == 1 else f", {workers} workers"


def bare_flask_under_gunicorn(running: ExitStack, folder: Path) -> Iterator[Contender]:
    """Yield the bare Flask view under gunicorn, which keeps no connection alive."""
    server = running.enter_context(servers.under_gunicorn("bare_flask", folder))
    request = Request("/token", token_form(CLIENT_ID, CLIENT_SECRET), ISSUED)
    yield Contender(
        f"{BARE_FLASK}, gunicorn", "form in, JSON out; gunicorn sync", server, lambda: request
    )


def start_ours(
    running: ExitStack,
    folder: Path,
    database: str,
    workers: int = 1,
    register: Callable[[Services], object] | None = None,
) -> tuple[Server, Registered, str]:
    """Start ours until the stack closes; return it, who uses it, and its name.

    Args:
        running: ends it.
        folder: for its files.
        database: ``SQLite`` or ``PostgreSQL``.
        workers: its processes.
        register: registers further clients; certificates then come from nginx on loopback.
    """
    if database == "SQLite":
        url = f"sqlite:///{folder / 'database.sqlite'}"
        serving = servers.ours(url, folder, workers=workers, register=register)
    else:
        serving = servers.ours_on_postgresql(folder, workers=workers, register=register)
    server, registered = running.enter_context(serving)
    return server, registered, f"{OURS} on {database}{_with_workers(workers)}"


def our_tokens(database: str, *, workers: int = 1, profile: bool = False) -> Setting:
    """Return ours issuing tokens.

    Args:
        database: ``SQLite`` or ``PostgreSQL``.
        workers: its processes.
        profile: ask at the G2P Connect endpoint as well.
    """

    def setting(running: ExitStack, folder: Path) -> Iterator[Contender]:
        server, registered, name = start_ours(running, folder, database, workers)
        plain = token_request(registered)
        yield Contender(name, "JWT ES256", server, lambda: plain)
        if profile:
            yield Contender(
                f"{name}, G2P Connect", "JWT ES256", server, lambda: _profiled(registered)
            )

    return setting


def token_request(registered: Registered) -> Request:
    """Return the request for one of our tokens."""
    form = token_form(registered.client_id, registered.client_secret)
    return Request("/oauth2/token", form, ISSUED, distinct=True)


def _profiled(registered: Registered) -> Request:
    headers = {"timestamp": formatdate(time.time(), usegmt=True), "message_id": "m-1"}
    form = token_form(registered.client_id, registered.client_secret)
    return Request("/oauth2/client/token", form, ISSUED, headers, distinct=True)


def our_introspection(database: str, *, workers: int = 1) -> Setting:
    """Return ours introspecting one token again and again; arguments as for ``our_tokens``."""

    def setting(running: ExitStack, folder: Path) -> Iterator[Contender]:
        server, registered, name = start_ours(running, folder, database, workers)

        def introspection() -> Request:
            form = token_form(registered.client_id, registered.client_secret)
            token = obtain_token(server, "/oauth2/token", form)
            caller = basic(registered.resource_server_id, registered.resource_server_secret)
            return Request("/oauth2/introspect", {"token": token}, ACTIVE, caller)

        yield Contender(name, "JWT ES256, revocation looked up", server, introspection)

    return setting


def authlib_tokens(tokens: str, *, gunicorn: bool = False) -> Setting:
    """Return Authlib as documented issuing tokens, ``jwt`` or ``stored``."""
    form = "opaque, stored in SQLite" if tokens == "stored" else "JWT ES256, not stored"
    host = "gunicorn" if gunicorn else "Granian"

    def setting(running: ExitStack, folder: Path) -> Iterator[Contender]:
        serve = servers.under_gunicorn if gunicorn else servers.under_granian
        environment = _authlib_environment(folder, tokens)
        server = running.enter_context(serve("authlib_documented", folder, environment))
        credentials = token_form(CLIENT_ID, CLIENT_SECRET)
        request = Request("/oauth/token", credentials, '"access_token": "')
        name = f"Authlib as documented, {tokens}, {host}"
        yield Contender(name, f"{form}; {host}", server, lambda: request)

    return setting


def authlib_introspection(running: ExitStack, folder: Path) -> Iterator[Contender]:
    """Yield Authlib as documented introspecting a stored token."""
    environment = _authlib_environment(folder, "stored")
    server = running.enter_context(servers.under_granian("authlib_documented", folder, environment))

    def introspection() -> Request:
        token = obtain_token(server, "/oauth/token", token_form(CLIENT_ID, CLIENT_SECRET))
        caller = basic("mapper", CLIENT_SECRET)
        return Request("/oauth/introspect", {"token": token}, '"active": true', caller)

    yield Contender("Authlib as documented", "opaque, from SQLite; Granian", server, introspection)


def _authlib_environment(folder: Path, tokens: str) -> dict[str, str]:
    return {"BENCH_DATABASE": f"sqlite:///{folder / 'database.sqlite'}", "BENCH_TOKENS": tokens}
