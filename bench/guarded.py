"""A request to a guarded route: authz-verifier beside the middlewares of other ecosystems."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from authz_server.database.schema import upgrade_database
from authz_server.settings import DatabaseSettings
from bench import guarded_servers as apis
from bench.contenders import Contender, open_contenders
from bench.free_cores import FreeCores
from bench.guarded_servers import SCOPE, Route, Start
from bench.load import Request
from bench.measurement import closed_loop, warm_up_compilers
from bench.servers import NotAtHandError
from bench.turns import Plan
from support.printed_settings import Scene, served_scene

KIND = "guarded"
_CONNECTIONS = (8,)
_SIGNATURE: Mapping[str, Start] = {
    "Flask": apis.flask(
        {"authz-verifier in Flask": apis.OFFLINE, "Authlib's ResourceProtector": apis.AUTHLIB}
    ),
    "FastAPI": apis.fastapi({"authz-verifier in FastAPI": apis.OFFLINE}),
    "Express": apis.express,
    "Spring Security": apis.spring,
    "HAProxy": apis.haproxy,
    "mod_oauth2": apis.mod_oauth2(),
    "mod_oauth2, results kept": apis.mod_oauth2("kept"),
}
_INTROSPECTION: Mapping[str, Start] = {
    "Flask": apis.flask(
        {
            "authz-verifier in Flask": apis.ASKING,
            "authz-verifier in Flask, responses kept": apis.KEEPING,
        }
    ),
    "nginx": apis.nginx,
    "mod_oauth2": apis.mod_oauth2("introspection"),
    "mod_auth_openidc": apis.mod_auth_openidc,
}
_GROUPS = {
    "A request to a guarded route, the signature checked": _SIGNATURE,
    "A request to a guarded route, the token introspected": _INTROSPECTION,
}


def measure_guarded(
    plan: Plan, cores: FreeCores, directory: Path, only: str
) -> Sequence[Mapping[str, Any]]:
    """Return the groups of servers in processes of their own, with tokens of a server of ours.

    Args:
        plan: how much is measured.
        cores: waits for free ones and records busy ones.
        directory: for everything that is made.
        only: measure the servers with this in their name; empty: all.
    """
    groups = []
    for number, (title, starts) in enumerate(_GROUPS.items()):
        print(f" {title}:", flush=True)
        folder = directory / str(number)
        (folder / "issuer").mkdir(parents=True)
        with _issuer(folder / "issuer") as scene:
            asks = starts is _INTROSPECTION
            settings = {
                name: partial(open_api, scene, start, asks=asks)
                for name, start in starts.items()
                if only in name
            }
            with open_contenders(settings, folder) as (running, absent):
                warm_up_compilers(running, plan)
                tables = closed_loop(_CONNECTIONS, kind=KIND)(running, plan, cores)
        groups.append({"title": title, "tables": tables, "not_measured": absent})
    return groups


@contextmanager
def _issuer(folder: Path) -> Iterator[Scene]:
    """Run a server of ours with the settings of the tests, on SQLite."""
    url = f"sqlite:///{folder / 'database.sqlite'}"
    upgrade_database(DatabaseSettings(url=url))
    with served_scene(folder, url, logging={"level": "warning"}) as scene:
        yield scene


def open_api(
    scene: Scene,
    start: Start,
    running: ExitStack,
    folder: Path,
    *,
    asks: bool,
) -> Iterator[Contender]:
    """Start one kind of server; yield its routes, the floor first.

    Args:
        scene: the authorization server.
        start: starts the server.
        running: ends it.
        folder: for its files.
        asks: whether it queries the authorization server for tokens.

    Raises:
        NotAtHandError: it cannot be started here; names what it needs.
    """
    try:
        routes = running.enter_context(start(scene, folder))
    except pytest.skip.Exception as reason:
        # The tests' starters name what would let them run.
        raise NotAtHandError(str(reason).rpartition(": ")[2]) from None
    floor = next(iter(routes))
    for name, route in routes.items():
        if name != floor:
            require_refusals(scene, name, route)
        server = route.server
        if asks:
            server = replace(server, database_process_id=scene.server.process_id)
        yield Contender(
            name,
            route.does,
            server,
            partial(_request, scene, route),
            compiles_just_in_time="Spring" in name,
            bases={"floor": floor},
        )


def require_refusals(scene: Scene, name: str, route: Route) -> None:
    """Raise AssertionError if the route serves a request without a token, or without its scope."""
    url = f"http://127.0.0.1:{route.server.port}{route.path}"
    for headers in ({}, {"Authorization": f"Bearer {scene.token('mapper/resolve')}"}):
        answer = httpx.request(route.method, url, headers=headers, timeout=30)
        assert answer.status_code in (401, 403), f"{name}: {answer.status_code}"


def _request(scene: Scene, route: Route) -> Request:
    headers = {"Authorization": f"Bearer {scene.token(SCOPE)}"}
    return Request(route.path, {}, route.marker, headers, method=route.method)
