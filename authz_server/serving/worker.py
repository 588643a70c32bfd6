"""A worker process: the application on an event loop, until the main process stops it.

The main process forks it, or runs ``python -m authz_server.serving.worker NUMBER`` with the
descriptor of a file that has its order. Standard input is a pipe. A byte lets a worker that waits
accept connections. If the pipe closes, the main process is gone, and the worker exits to release
the port.
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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING, NoReturn

from authz_server.app import EXTENSION, Application, record_start
from authz_server.assembly.server import ServerServices
from authz_server.clients.authentication.slots import MAXIMUM_WAITING
from authz_server.clients.counters.shared import COUNTING_SECONDS
from authz_server.endpoints.client_address import ClientAddressReader
from authz_server.endpoints.errors import ErrorResponses
from authz_server.endpoints.event_polling import MAXIMUM_WAITING_POLLS
from authz_server.logs import configure_logging
from authz_server.serving.flask_requests import FlaskRequests
from authz_server.serving.front import FrontParts, WorkerFront
from authz_server.serving.lanes import Lanes
from authz_server.serving.self_check import CHECK_THREADS, Report, SelfCheck
from authz_server.serving.senders import Senders
from authz_server.serving.shares import Shares
from authz_server.serving.tls import TlsFiles, tls_context
from authz_server.settings import Role, ServerSettings, Settings
from authz_server.waiting import Lane

if TYPE_CHECKING:
    from authz_server.serving.postgresql_queries import PostgresqlQueries

#: Exit status of a worker that cannot serve with its settings; a restart would not help.
CANNOT_SERVE = 78
#: The descriptor of the pipe that the main process holds open.
STANDARD_INPUT = 0
#: Interval of reports to the main process.
REPORT_SECONDS = 1.0
#: Interval of reports until the worker serves.
FIRST_REPORTS_SECONDS = 0.2
#: Largest number of concurrent remote signatures; a backend may sign them in batches.
_SIGNING_THREADS = 32
#: Largest number of documents fetched at a time; each origin has a limit of its own below it.
FETCHING_THREADS = 32
#: Largest number of calls to the store of shared counts that have not returned.
_COUNTING_THREADS = 4
#: Largest number of calls to other issuers at a time; each issuer has a limit of its own below it.
_SOURCE_THREADS = 32
#: Threshold of the cyclic garbage collector; requests leave no cycles.
_COLLECTOR_THRESHOLD = 20_000
#: Open files of a worker besides connections: database, logs, modules being imported.
_OTHER_FILES = 256

#: The functions that make the applications. A role's module is imported by its workers alone.
_APPLICATIONS: Mapping[Role, str] = {
    "public": "authz_server.app:create_app",
    "admin": "authz_server.admin.app:create_admin_app",
}

# The name of this module is another one where it is the program.
logger = logging.getLogger("authz_server.serving.worker")


@dataclass(frozen=True, slots=True)
class Order:
    """The start parameters of a worker.

    Attributes:
        settings: validated settings.
        settings_file: their path, for the audit record.
        listeners: the descriptors of listening sockets.
        report: the descriptor of the pipe for its reports.
        role: the listener that it serves.
        table: the descriptor of the table of connections that its workers share.
        place: its entry in the table.
        tls: the files of the listener's TLS; None: plain HTTP.
        waits: whether it accepts no connection before the main process lets it.
    """

    settings: Settings
    settings_file: str
    listeners: tuple[int, ...]
    report: int
    role: Role
    table: int
    place: int
    tls: TlsFiles | None = None
    waits: bool = False

    def __setstate__(self, state: Sequence[object]) -> None:
        """Take the values of the fields, also from a main process that lacks the last ones.

        While an upgrade is installed, and until the restart, a main process of the earlier build
        starts workers of the new one.
        """
        known = fields(self)
        later = (each.default for each in known[len(state) :])
        for each, value in zip(known, (*state, *later), strict=True):
            object.__setattr__(self, each.name, value)

    @property
    def server(self) -> ServerSettings:
        """The settings of the listener."""
        return self.settings.listeners()[self.role]


def main() -> NoReturn:
    """Serve by the order in the file whose descriptor is the argument, then exit."""
    with open(int(sys.argv[1]), "rb") as file:  # noqa: PTH123 - an open file
        order: Order = pickle.load(file)  # noqa: S301 - from the main process alone
    run(order)


def run(order: Order) -> NoReturn:
    """Serve until SIGTERM, or until standard input ends; then exit.

    Args:
        order: the start parameters.
    """
    # Ctrl-C and SIGHUP reach the whole process group; only the main process handles them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    configure_logging(order.settings.logging)
    try:
        app = resolve_name(_APPLICATIONS[order.role])(order.settings)
        start(app, order)
        tls = tls_context(order.server, order.settings.client_certificates, order.tls)
    except Exception as error:  # noqa: BLE001 - any exception prevents serving
        reason = getattr(error, "detail", "") or error
        print(f"A worker cannot start: {reason}", file=sys.stderr)  # noqa: T201 - the main process's stream
        os._exit(CANNOT_SERVE)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_serve(app, order, tls))
    # A thread that waits for a backend must not delay the exit; run the exit functions directly.
    atexit._run_exitfuncs()  # noqa: SLF001 - as multiprocessing does for its children
    os._exit(0)


def start(app: Application, order: Order) -> None:
    """Start the background work of a worker; a worker of the public listener records it.

    Raises:
        AuditUnavailable: the start cannot be recorded, so that nothing may be served.
    """
    if order.role == "public":
        record_start(app, order.settings_file)
    else:
        services: ServerServices = app.extensions[EXTENSION]
        services.maintenance.start(keys_at_once=True)


def new_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop, uvloop's if installed."""
    try:
        import uvloop  # noqa: PLC0415 - it may be missing
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


async def _serve(app: Application, order: Order, tls: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    settings = order.server
    services: ServerServices = app.extensions[EXTENSION]
    shares = Shares(order.table, order.place) if settings.workers > 1 else None
    front, lanes = build_front(loop, app, services, settings, shares)
    # `decided`: the worker may accept connections, or stops before it might.
    stop, decided = asyncio.Event(), asyncio.Event()
    if not order.waits:
        decided.set()

    def end() -> None:
        stop.set()
        decided.set()

    loop.add_signal_handler(signal.SIGTERM, end)
    listeners = [socket.socket(fileno=descriptor) for descriptor in order.listeners]
    for listener in listeners:
        listener.setblocking(False)  # noqa: FBT003 - the standard library's signature

    def read_input() -> None:
        if os.read(STANDARD_INPUT, 1):
            decided.set()
        else:
            end()

    loop.add_reader(STANDARD_INPUT, read_input)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTOR_THRESHOLD, 50, 100)
    check = SelfCheck(services, lanes, order.settings.keys.default_ring)
    reports = loop.create_task(_report(order.report, check))
    await decided.wait()
    if not stop.is_set():
        front.listen(listeners, tls)
    await stop.wait()
    loop.remove_reader(STANDARD_INPUT)
    reports.cancel()
    front.stop_accepting()
    # The pipe may be full, or the main process gone; else that learns it from the exit.
    with suppress(OSError):
        os.write(order.report, Report(accepts=False).encode())
    await front.drain(settings.shutdown_grace_seconds)
    if services.metrics is not None:
        services.metrics.flush()
    await lanes.close()


def build_front(
    loop: asyncio.AbstractEventLoop,
    app: Application,
    services: ServerServices,
    server: ServerSettings,
    shares: Shares | None = None,
) -> tuple[WorkerFront, Lanes]:
    """Return the front and the lanes of a worker for a listener with the settings ``server``."""
    settings = services.settings
    prepared_queries = services.database.prepared_queries
    lanes = Lanes(
        loop,
        threads=_threads(settings),
        maximum_waiting=server.maximum_waiting_requests,
        prepared_queries=prepared_queries.without_waiting(),
        seconds={
            Lane.PLUGINS: 2.0 * settings.plugins.timeout_seconds,
            Lane.COUNTS: COUNTING_SECONDS,
        },
    )
    queries: PostgresqlQueries | None = None
    if not settings.database.url.startswith("sqlite"):
        queries = _make_queries(loop, services, server, lanes)
        lanes.use_queries(queries)
    addresses = ClientAddressReader(server.trusted_proxies, server.forwarded_header)
    metrics = services.metrics
    if metrics is not None:
        metrics.add_up()

    def each_tick() -> None:
        if metrics is not None:
            metrics.flush()
        if queries is not None:
            queries.expire()

    parts = FrontParts(
        endpoints=app.direct,
        resources=app.resources,
        other=FlaskRequests(
            app.wsgi_app,
            maximum_waiting=server.maximum_waiting_requests,
            secure=bool(server.tls_certificate),
            slow_paths=app.slow_paths,
        ),
        lanes=lanes,
        senders=Senders(
            maximum=allow_connections(server.maximum_connections),
            maximum_each=server.maximum_connections_per_address,
            maximum_bodies=server.maximum_bodies_per_address,
            is_exempt=addresses.is_trusted_proxy,
        ),
        errors=app.errors or ErrorResponses(server.retry_after_seconds),
        notify=services.notify,
        addresses=addresses,
        each_tick=each_tick,
        access_log=app.access_log,
        shares=shares,
        larger_bodies=app.larger_bodies,
    )
    return WorkerFront(loop, server, parts), lanes


def _make_queries(
    loop: asyncio.AbstractEventLoop, services: ServerServices, server: ServerSettings, lanes: Lanes
) -> "PostgresqlQueries":
    # Imported for PostgreSQL alone, because its driver is slow to import.
    from authz_server.serving.postgresql_queries import PostgresqlQueries  # noqa: PLC0415

    settings = services.settings.database
    return PostgresqlQueries(
        loop,
        services.database.prepared_queries.engine,
        connections=settings.pool_size,
        maximum_waiting=server.maximum_connections,
        wait_seconds=settings.pool_timeout_milliseconds / 1_000,
        answer_seconds=settings.statement_timeout_milliseconds / 1_000 + 0.5,
        call=partial(lanes.call, Lane.DATABASE),
    )


def allow_connections(wanted: int) -> int:
    """Raise this process's limit of open files; return the number of connections it allows.

    Args:
        wanted: the configured largest number of connections.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and needed > hard:
        needed, allowed = hard, max(1, hard - _OTHER_FILES)
        logger.warning(
            "the limit of open files is %d: this worker holds at most %d connections, not %d",
            hard,
            allowed,
            wanted,
        )
        wanted = allowed
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return wanted


def _threads(settings: Settings) -> Mapping[Lane, int]:
    return {
        Lane.DATABASE: settings.server.threads,
        Lane.SIGNING: max(_SIGNING_THREADS, settings.server.threads),
        # Threads for all that compute or wait for a slot; the slots decide the order.
        Lane.SECRETS: settings.clients.argon2_concurrency + MAXIMUM_WAITING + 1,
        Lane.PLUGINS: settings.server.threads,
        # Several slow origins leave threads to a prompt one.
        Lane.OUTBOUND: FETCHING_THREADS,
        # Counts go one after the other; one that hangs keeps its thread.
        Lane.COUNTS: _COUNTING_THREADS,
        Lane.EVENTS: MAXIMUM_WAITING_POLLS,
        # Issuers that hang keep threads of no other work.
        Lane.SOURCES: _SOURCE_THREADS,
        # Its checks of itself wait behind no request.
        Lane.CHECKS: CHECK_THREADS,
    }


async def _report(descriptor: int, check: SelfCheck) -> None:
    """Write a report for the main process every second, more often until this worker serves."""
    os.set_blocking(descriptor, False)
    while True:
        report = await check.check()
        # If the main process is busy, the next report repeats this one.
        with suppress(BlockingIOError):
            os.write(descriptor, report.encode())
        await asyncio.sleep(FIRST_REPORTS_SECONDS if report.failed else REPORT_SECONDS)


if __name__ == "__main__":
    main()
