"""``serve``: the server, under Granian."""

import logging
import multiprocessing
import os
import socket
from functools import partial
from pathlib import Path

import click
from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.server import MPServer
from sqlalchemy.exc import OperationalError

from authz_server.app import create_health_application, operator_services, require_usable
from authz_server.cli.commands import Command
from authz_server.cli.health_listener import HealthListener
from authz_server.cli.http_messages import MessageRules, forget_headers_in_environment
from authz_server.cli.invocation import CONFIG_VARIABLE, Invocation
from authz_server.cli.metrics_folder import metrics_folder
from authz_server.cli.output import say
from authz_server.cli.parties import pass_invocation
from authz_server.cli.worker import BODY_SECONDS, THREADS_FOR_SLOW_BODIES, load_application
from authz_server.database.errors import find_unfitness
from authz_server.database.schema import require_schema
from authz_server.logs import configure_logging
from authz_server.settings import ServerSettings, Settings
from keys.errors import StoreUnavailable

TARGET = "authz_server.wsgi:application"
# The least that Granian takes: request line and headers together, a longer one is refused.
MAXIMUM_HEADER_BYTES = 8_192
# How long a worker process may take to accept the connection by which readiness is asked.
LISTENER_SECONDS = 1

logger = logging.getLogger(__name__)


@click.command("serve", cls=Command)
@pass_invocation
def serve(invocation: Invocation) -> None:
    """Run the server.

    It ends at SIGTERM or Ctrl-C; requests under way are answered first. The health listener, on an
    address of its own, answers /health/live and /health/ready.
    """
    settings = invocation.settings()
    require_usable(settings)
    require_prepared(settings)
    for host, port in (
        (settings.server.host, settings.server.port),
        (settings.server.health_host, settings.server.health_port),
    ):
        require_free(host, port)
    # The workers are new interpreters: they find the settings file where this variable points.
    os.environ[CONFIG_VARIABLE] = str(invocation.config.resolve())
    # Each of the many threads that slow senders may occupy would else keep memory of its own.
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    multiprocessing.set_start_method("spawn", force=True)
    with metrics_folder() as folder:
        run_server(settings, folder)


def require_prepared(settings: Settings) -> None:
    """Refuse to start without schema or keys, naming the command that helps.

    A database server that does not answer is waited for: until it does, the server is not ready.
    """
    try:
        require_schema(settings.database)
        _require_keys(settings)
    except (OperationalError, StoreUnavailable) as error:
        if settings.database.parts.is_sqlite or find_unfitness(error):
            raise
        say(f"The database does not answer yet ({type(error).__name__}): the server is not ready.")


def _require_keys(settings: Settings) -> None:
    with operator_services(settings) as services:
        rings = services.key_store.load_rings(services.clock())
    # A ring may have no key that signs just now: a new ring's wait, or all of them were revoked.
    filled = {ring.name for ring in rings if ring.keys}
    for name in settings.keys.rings:
        if name not in filled:
            raise click.ClickException(f"The key ring {name} has no keys: run `authz-server init`.")


def require_free(host: str, port: int) -> None:
    """Refuse an address that is taken.

    The server's own listeners share their port among the workers, so a second server would not be
    refused by the system but take half of the connections.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise click.ClickException(
                f"{host} port {port} cannot be used ({error.strerror}): "
                "end what listens there, or change the port in the settings."
            ) from None


def require_listening(host: str, port: int) -> None:
    """Connect to the public listener; OSError while no worker process accepts connections."""
    with socket.create_connection((host, port), LISTENER_SECONDS):
        pass


def run_server(settings: Settings, folder: Path) -> None:
    """Serve until told to stop; workers that die are replaced.

    Args:
        settings: checked already.
        folder: where the workers count.
    """
    # Its library takes a while to load: no other command is to wait for it.
    from authz_server.metrics_page import MetricsPage  # noqa: PLC0415

    server = build_server(settings.server)
    configure_logging(settings.logging)
    public = (settings.server.host, settings.server.port)
    health = HealthListener(
        create_health_application(
            settings,
            {"listener": partial(require_listening, *public)},
            open_metrics=partial(MetricsPage, folder),
        ),
        settings.server.health_host,
        settings.server.health_port,
    )
    server.on_startup(health.start)
    server.on_shutdown(health.stop)
    loader = partial(
        load_guarded_application,
        port=settings.server.port,
        silence_seconds=settings.server.header_timeout_seconds + BODY_SECONDS,
    )
    server.serve(target_loader=loader)


def load_guarded_application(target: str, *, port: int, silence_seconds: float) -> MessageRules:
    """Return the application of a worker process, guarded from what the WSGI server lets through.

    Args:
        target: as for :func:`~authz_server.cli.worker.load_application`.
        port: likewise.
        silence_seconds: likewise.
    """
    forget_headers_in_environment(os.environ)
    return MessageRules(load_application(target, port=port, silence_seconds=silence_seconds))


def build_server(settings: ServerSettings, target: str = TARGET) -> MPServer:
    """Return the WSGI server for the public listener, ready to serve ``target``."""
    return MPServer(
        target,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.WSGI,
        workers=settings.workers,
        blocking_threads=settings.threads + THREADS_FOR_SLOW_BODIES,
        backlog=settings.backlog,
        backpressure=settings.backlog,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=settings.header_timeout_seconds * 1_000,
            max_buffer_size=MAXIMUM_HEADER_BYTES,
        ),
        websockets=False,
        ssl_cert=Path(settings.tls_certificate) if settings.tls_certificate else None,
        ssl_key=Path(settings.tls_private_key) if settings.tls_private_key else None,
        ssl_protocol_min=SSLProtocols.tls12,
        respawn_failed_workers=True,
        workers_kill_timeout=settings.shutdown_grace_seconds,
    )
