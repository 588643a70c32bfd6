"""APIs in processes of their own, with the printed settings that the tests run, and their floors.

A floor is a route of the same process without a guard. In Python it has a process of its own, as
a guard is a part of the whole application. nginx and HAProxy pass requests on to a listener of
their own process.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench import servers
from bench.servers import Server, reserved_ports, running_server
from support.apache import Apache
from support.node import EXPRESS, install
from support.parties import RESOURCE_SERVERS
from support.printed_settings import Scene
from support.printed_verifiers import (
    printed_apache,
    printed_haproxy,
    printed_nginx,
    printed_openidc,
    replaced,
    write_key_job,
)
from support.spring import build_spring, spring_options

SCOPE = "mapper/link"
ANSWER = '{"client":"ministry"}'
_SPRING_FLOOR = Path(__file__).parent / "spring" / "Bare.java"


class Route(NamedTuple):
    """Where requests are sent, and how.

    Attributes:
        server: where it answers.
        does: the work of one request.
        path: of the request.
        method: of the request.
        marker: what every answer holds.
    """

    server: Server
    does: str
    path: str = "/"
    method: str = "POST"
    marker: str = '{"client":'


#: The routes of one kind of server by their names; the first is the floor.
Routes = Mapping[str, Route]
Start = Callable[[Scene, Path], AbstractContextManager[Routes]]
_BARE = "no guard"
_VERIFIES, _ASKS = "signature and claims", "introspects each token"
_KEEPS = "introspects a token every 10 s"


class Guard(NamedTuple):
    """A guard of an application in Python.

    Attributes:
        does: the work of one request.
        kind: what the application's module calls it; empty: none.
        settings: of authz-verifier; its credentials are added if there are any.
    """

    does: str
    kind: str
    settings: Mapping[str, object] = {}


def flask(guards: Mapping[str, Guard]) -> Start:
    """Return what starts Flask under Granian, one thread, with each guard and with none."""
    serve = partial(servers.under_granian, "guarded_flask", threads=1)
    return partial(_python, serve, {"Flask": Guard(_BARE, ""), **guards})


def fastapi(guards: Mapping[str, Guard]) -> Start:
    """Return what starts FastAPI under uvicorn with each guard and with none."""
    serve = partial(servers.under_uvicorn, "guarded_fastapi")
    return partial(_python, serve, {"FastAPI": Guard(_BARE, ""), **guards})


@contextmanager
def _python(
    serve: Callable[..., AbstractContextManager[Server]],
    guards: Mapping[str, Guard],
    scene: Scene,
    folder: Path,
) -> Iterator[Routes]:
    asking = {"client_id": scene.demo.mapper.id, "client_secret": scene.demo.mapper.secret}
    with ExitStack() as running:

        def start(guard: Guard) -> Route:
            settings = {**guard.settings, **asking} if guard.settings else {}
            environment = {
                "BENCH_GUARD": guard.kind,
                "BENCH_ISSUER": scene.server.base_url,
                "BENCH_AUDIENCE": RESOURCE_SERVERS["mapper"],
                "BENCH_SCOPE": SCOPE,
                "BENCH_SETTINGS": json.dumps(settings),
            }
            serving = serve(directory=folder, environment=environment)
            return Route(running.enter_context(serving), guard.does)

        yield {name: start(guard) for name, guard in guards.items()}


OFFLINE = Guard(_VERIFIES, "authz-verifier")
ASKING = Guard(_ASKS, "authz-verifier", {"mode": "introspection"})
KEEPING = Guard(
    _KEEPS, "authz-verifier", {"mode": "introspection", "introspection_cache_seconds": 10}
)
AUTHLIB = Guard(_VERIFIES, "Authlib")


@contextmanager
def express(scene: Scene, folder: Path) -> Iterator[Routes]:
    """Serve the printed API in Node; the floor's route stands before its guard."""
    program = install(EXPRESS, folder / "express") / "printed.js"
    bare = f'app.post("/bare", (request, response) => response.json({ANSWER}));'
    with reserved_ports(1) as [port]:
        text = replaced(
            scene.snippet("node"),
            ("const app = express();", 1, f"const app = express();\n{bare}"),
            ("app.listen(9000)", 1, f'app.listen({port}, "127.0.0.1")'),
        )
        program.write_text(text, encoding="utf-8")
        command = ["node", str(program)]
        with running_server(command, port, folder, {"NODE_ENV": "production"}) as server:
            yield {
                "Express": Route(server, _BARE, "/bare"),
                "express-oauth2-jwt-bearer": Route(server, _VERIFIES),
            }


@contextmanager
def spring(scene: Scene, folder: Path) -> Iterator[Routes]:
    """Serve the API of the tests with Spring Security and the decoder of docs/connecting.md."""
    source = {"src/main/java/org/example/Bare.java": _SPRING_FLOOR.read_text(encoding="utf-8")}
    program = build_spring(folder, source)
    with reserved_ports(1) as [port]:
        options = spring_options(scene, port, scene.snippet("spring"), SCOPE, "documented")
        command = ["java", "-jar", str(program), *options]
        with running_server(command, port, folder) as server:
            yield {
                "Spring Boot": Route(server, _BARE, "/bare"),
                "Spring Security": Route(server, _VERIFIES),
            }


@contextmanager
def nginx(scene: Scene, folder: Path) -> Iterator[Routes]:
    """Serve nginx with njs, which introspects every token."""
    with reserved_ports(1) as [port]:
        api = f"http://127.0.0.1:{port}"
        check = "    location = /_authz {"
        bare = f"    location = /bare {{ proxy_pass {api}; }}\n"
        own = "resolver 127.0.0.53 valid=10s;"
        listener = f"server {{ listen 127.0.0.1:{port}; return 200 '{ANSWER}'; }}\n"
        changes = ((check, 1, bare + check), (own, 1, listener + own))
        with (
            printed_nginx(scene, port, *changes) as command,
            running_server(*command, folder) as server,
        ):
            yield {
                "nginx": Route(server, _BARE, "/bare"),
                "nginx with njs": Route(server, _ASKS),
            }


@contextmanager
def haproxy(scene: Scene, folder: Path) -> Iterator[Routes]:
    """Serve HAProxy, which verifies signatures; its keys are those of now."""
    with reserved_ports(2) as [port, bare_port]:
        body = ANSWER.replace('"', '\\"')
        added = (
            f"\nfrontend bare\n    bind 127.0.0.1:{bare_port}\n    default_backend api\n"
            f"\nfrontend answers\n    bind 127.0.0.1:{port}\n"
            f'    http-request return status 200 content-type application/json string "{body}"\n'
        )
        with (
            printed_haproxy(scene, write_key_job(scene), port, added) as command,
            running_server(*command, folder) as server,
        ):
            yield {
                "HAProxy": Route(replace(server, port=bare_port), _BARE),
                "HAProxy with JWT rules": Route(server, _VERIFIES),
            }


def mod_oauth2(kind: str = "") -> Start:
    """Return what starts Apache with mod_oauth2.

    Args:
        kind: ``kept``: it keeps what it verified, as it does unless told otherwise;
            ``introspection``: with the printed settings; empty: it verifies each token.
    """
    return partial(_mod_oauth2, kind)


@contextmanager
def _mod_oauth2(kind: str, scene: Scene, _: Path) -> Iterator[Routes]:
    issuer = scene.server.base_url
    printed = (
        f"introspect {issuer}/oauth2/introspect introspect.auth=client_secret_basic"
        "&client_id=mapper&client_secret=${AUTHZ_SECRET}&expiry=10"
    )
    by_signature = f"jwks_uri {issuer}/.well-known/jwks.json"
    check, does, name = {
        "": (f"{by_signature} expiry=0", _VERIFIES, "mod_oauth2"),
        "kept": (by_signature, "signature and claims every 300 s", "mod_oauth2, results kept"),
        "introspection": (printed, _KEEPS, "mod_oauth2"),
    }[kind]
    changes = (_LOCATION, (printed, 1, check))
    with printed_apache(scene, "apache", ["oauth2", "rewrite"], *changes) as apache:
        yield _apache_routes(apache, name, does)


@contextmanager
def mod_auth_openidc(scene: Scene, _: Path) -> Iterator[Routes]:
    """Serve a file by Apache with mod_auth_openidc."""
    with printed_openidc(scene, _LOCATION) as apache:
        yield _apache_routes(apache, "mod_auth_openidc", _KEEPS)


_LOCATION = ('<Location "/">', 1, '<Location "/list.txt">')


def _apache_routes(apache: Apache, module: str, does: str) -> Routes:
    listed = apache.log_path.parent / "documents" / "list.txt"
    listed.with_name("bare.txt").write_bytes(listed.read_bytes())
    server, asked = Server(apache.port, apache.process_id), ("GET", "a list")
    return {
        f"Apache with {module}": Route(server, _BARE, "/bare.txt", *asked),
        module: Route(server, does, "/list.txt", *asked),
    }
