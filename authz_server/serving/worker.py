"""One worker process: the application on an event loop, until the main process ends it.

The main process starts it by ``python -m authz_server.serving.worker`` and writes what it is to do
to its standard input. That pipe stays open: when it closes, the main process is gone, and the
worker ends too rather than hold the port.
"""

import asyncio
import atexit
import gc
import logging
import os
import pickle
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from authz_server.app import EXTENSION, Application, create_app, tell_of_start
from authz_server.assembly import Services
from authz_server.clients.authentication.slots import MAXIMUM_WAITING
from authz_server.endpoints.client_address import ClientAddressReader
from authz_server.endpoints.errors import ErrorAnswers
from authz_server.logs import configure_logging
from authz_server.serving.flask_requests import FlaskRequests
from authz_server.serving.front import FrontParts, WorkerFront
from authz_server.serving.lanes import Lanes
from authz_server.serving.postgresql_queries import PostgresqlQueries
from authz_server.serving.self_check import SelfCheck
from authz_server.serving.senders import Senders
from authz_server.settings import ServerSettings, Settings
from authz_server.waiting import Lane

#: The exit status of a worker that cannot serve under its settings: starting it again is of no use.
CANNOT_SERVE = 78
#: How often a worker reports to the main process.
REPORT_SECONDS = 1.0
#: How often it does until it serves.
FIRST_REPORTS_SECONDS = 0.2
#: Remote signatures under way at a time; a backend that takes batches signs them together.
_SIGNING_THREADS = 32
#: Objects beyond which the cyclic collector looks at the young ones: requests leave no cycles.
_COLLECTOR_THRESHOLD = 20_000
#: Files that a worker has open beside its connections: database, logs, modules being loaded.
_OTHER_FILES = 256

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """The order that a worker gets at its start.

    Attributes:
        settings: checked already.
        settings_file: where they come from, for the record.
        listeners: the descriptors of listening sockets.
        report: the descriptor of the pipe that takes its reports.
    """

    settings: Settings
    settings_file: str
    listeners: tuple[int, ...]
    report: int


def main() -> None:
    """Serve as the order on standard input says; the process ends here."""
    order: Order = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the main process alone
    # Ctrl-C and SIGHUP reach the whole process group: the main process decides what they mean.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    configure_logging(order.settings.logging)
    try:
        app = create_app(order.settings)
        tell_of_start(app, order.settings_file)
        tls = tls_context(order.settings.server)
    except Exception as error:  # noqa: BLE001 - whatever it is, it keeps this worker from serving
        print(f"A worker cannot start: {error}", file=sys.stderr)  # noqa: T201 - the main process's stream
        os._exit(CANNOT_SERVE)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_serve(app, order, tls))
    # A thread that waits for a backend must not hold up the end; what ends in order is ended here.
    atexit._run_exitfuncs()  # noqa: SLF001 - as multiprocessing does for its children
    os._exit(0)


def new_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop: uvloop's where it is installed."""
    try:
        import uvloop  # noqa: PLC0415 - it may be missing
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def tls_context(settings: ServerSettings) -> ssl.SSLContext | None:
    """Return what speaks TLS on the public listener; None where a proxy in front does.

    Raises:
        OSError: the certificate or its key cannot be read or used.
    """
    if not settings.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(settings.tls_certificate, settings.tls_private_key)
    return context


async def _serve(app: Application, order: Order, tls: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    settings = order.settings.server
    services: Services = app.extensions[EXTENSION]
    front, lanes = build_front(loop, app, services, order.settings)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(sys.stdin.fileno(), stop.set)
    listeners = [socket.socket(fileno=descriptor) for descriptor in order.listeners]
    for listener in listeners:
        listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
    front.listen(listeners, tls)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTOR_THRESHOLD, 50, 100)
    check = SelfCheck(services, lanes, order.settings.keys.default_ring)
    reports = loop.create_task(_report(order.report, check))
    await stop.wait()
    loop.remove_reader(sys.stdin.fileno())
    reports.cancel()
    await front.drain(settings.shutdown_grace_seconds)
    services.observer.flush()
    await lanes.close()


def build_front(
    loop: asyncio.AbstractEventLoop, app: Application, services: Services, settings: Settings
) -> tuple[WorkerFront, Lanes]:
    """Return the front of a worker, and the lanes in which its requests wait."""
    server = settings.server
    look_ups = services.database.look_ups
    queries: list[PostgresqlQueries] = []
    lanes = Lanes(
        loop,
        threads=_threads(settings),
        maximum_waiting=server.maximum_waiting_requests,
        look_ups=look_ups.without_waiting(),
    )
    if not settings.database.url.startswith("sqlite"):
        queries.append(
            PostgresqlQueries(
                loop,
                look_ups.engine,
                connections=settings.database.pool_size,
                maximum_waiting=server.maximum_connections,
                wait_seconds=settings.database.pool_timeout_milliseconds / 1_000,
                answer_seconds=settings.database.statement_timeout_milliseconds / 1_000 + 0.5,
                call=partial(lanes.call, Lane.DATABASE),
            )
        )
        lanes.ask_by(queries[0])
    addresses = ClientAddressReader(server.trusted_proxies, server.forwarded_header)
    observer = services.observer
    observer.add_up()

    def each_tick() -> None:
        observer.flush()
        for each in queries:
            each.expire()

    parts = FrontParts(
        endpoints=app.direct,
        other=FlaskRequests(
            app.wsgi_app,
            maximum_waiting=server.maximum_waiting_requests,
            secure=bool(server.tls_certificate),
        ),
        lanes=lanes,
        senders=Senders(
            maximum=allow_connections(server.maximum_connections),
            maximum_each=server.maximum_connections_per_address,
            maximum_bodies=server.maximum_bodies_per_address,
            is_exempt=addresses.is_trusted_proxy,
        ),
        errors=ErrorAnswers(server.retry_after_seconds),
        record=services.record,
        shed=observer.shed,
        each_tick=each_tick,
    )
    return WorkerFront(loop, server, parts), lanes


def allow_connections(wanted: int) -> int:
    """Raise this process's limit of open files for its connections; return how many it allows.

    Args:
        wanted: the most connections that the settings permit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and needed > hard:
        logger.warning(
            "the limit of open files is %d: this worker holds %d connections, not %d",
            hard,
            hard - _OTHER_FILES,
            wanted,
        )
        needed = hard
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return max(1, needed - _OTHER_FILES)


def _threads(settings: Settings) -> Mapping[Lane, int]:
    return {
        Lane.DATABASE: settings.server.threads,
        Lane.SIGNING: max(_SIGNING_THREADS, settings.server.threads),
        # Those that compute, and all that may wait for a slot: the slots decide who is next.
        Lane.SECRETS: settings.clients.argon2_concurrency + MAXIMUM_WAITING + 1,
        Lane.PLUGINS: settings.server.threads,
    }


async def _report(descriptor: int, check: SelfCheck) -> None:
    """Write a line for the main process every second, more often until this worker serves."""
    os.set_blocking(descriptor, False)
    while True:
        report = await check.look()
        # While the main process is busy, the next line says the same.
        with suppress(BlockingIOError):
            os.write(descriptor, report.encode())
        await asyncio.sleep(FIRST_REPORTS_SECONDS if report.failed else REPORT_SECONDS)


if __name__ == "__main__":
    main()
