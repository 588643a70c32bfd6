"""``serve``: run the server with its workers."""

import logging
import socket
import threading
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from wsgiref.types import WSGIApplication

import click
from sqlalchemy.exc import OperationalError

from authz_server.app import create_health_application, require_usable
from authz_server.audit.seen_changes import SeenChanges
from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.database.errors import (
    describe_failure,
    find_sentence,
    find_unfitness,
    with_driver_error,
)
from authz_server.logs import configure_logging
from authz_server.operations import preflight
from authz_server.operations.own_certificates import (
    find_certificate_ends,
    find_ending_certificates,
)
from authz_server.serving.early_reload import early_reload
from authz_server.serving.health_listener import HealthListener
from authz_server.serving.listeners import ServingError
from authz_server.serving.metrics_folder import metrics_folder
from authz_server.serving.supervisor import Supervisor
from authz_server.settings import Settings, SettingsError, load_settings
from keys.errors import StoreUnavailable

logger = logging.getLogger(__name__)


@click.command("serve", cls=Command, here="it is the server", example="authz-server serve")
@pass_invocation
def serve(invocation: Invocation) -> None:
    """Run the server.

    SIGTERM or Ctrl-C stops it; requests under way are answered first. SIGHUP applies changed
    settings. The health listener, on an address of its own, answers /health/live and /health/ready.
    """
    # A SIGHUP so far asks for no other settings than those that are read now.
    early_reload.is_due = False
    settings = invocation.settings()
    configure_logging(settings.logging)
    # The folder first: a plugin that imports the library of metrics fixes whether it uses one.
    with metrics_folder() as folder:
        require_usable(settings)
        require_prepared(settings)
        require_free(settings.server.health_host, settings.server.health_port)
        run_server(settings, invocation.config.resolve(), folder)


def require_prepared(settings: Settings) -> None:
    """Require a schema and keys; the error names the command that makes them.

    A database server that does not answer yet is accepted: the server is not ready until it does.
    """
    _warn_of_faults(settings)
    try:
        preflight.require_prepared(settings)
        _warn(preflight.check_pepper, settings)
    except with_driver_error(OperationalError, StoreUnavailable, name="OperationalError") as error:
        if settings.database.parts.is_sqlite or find_unfitness(error):
            raise
        reported = find_sentence(error) or describe_failure(error).rstrip(".")
        logger.warning("the database does not answer yet (%s): the server is not ready", reported)


def _warn_of_faults(settings: Settings) -> None:
    for fault in preflight.find_faults(settings):
        logger.warning("what depends on this setting is refused until it is mended: %s", fault)
    for key, problem, remedy in find_ending_certificates(settings):
        logger.warning("%s: %s %s", key, problem, remedy)
    _warn(preflight.check_counts, settings)


def _warn(check: preflight.Check, settings: Settings) -> None:
    try:
        check(settings)
    except SettingsError as error:
        logger.warning("%s", error)


def require_free(host: str, port: int) -> None:
    """Require an address that can be listened on."""
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


class HealthService:
    """The health listener of a server, under the settings in force.

    Its application is made on a thread, because plugins and key backends may take long to start;
    the main process handles signals and watches its workers meanwhile.

    Args:
        settings: the settings at the start.
        folder: the folder of the workers' metrics.
        supervisor: the supervisor of the workers.
    """

    def __init__(self, settings: Settings, folder: Path, supervisor: Supervisor) -> None:
        self._folder = folder
        self._supervisor = supervisor
        # Kept over a reload, also one with the address of a copy.
        self._seen = SeenChanges()
        self._address = _health_address(settings)
        self._listener: HealthListener | None = None
        self._failure: Exception | None = None
        self._is_stopped = False
        self._lock = threading.Lock()
        self._wanted: SimpleQueue[Settings] = SimpleQueue()
        self._wanted.put(settings)
        threading.Thread(target=self._run, name="health-settings", daemon=True).start()

    def apply(self, settings: Settings) -> None:
        """Apply new settings, and listen on their address."""
        configure_logging(settings.logging)
        self._wanted.put(settings)

    def require_free(self, settings: Settings) -> None:
        """Require that the address of new settings can be listened on."""
        address = _health_address(settings)
        if address != self._address:
            require_free(*address)

    def require_started(self) -> None:
        """Raise the exception that kept the listener from its start; none so far: return."""
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Stop answering; what is still being made is not used."""
        with self._lock:
            self._is_stopped = True
            if self._listener is not None:
                self._listener.stop()

    def _run(self) -> None:
        while not self._is_stopped and self._failure is None:
            settings = self._wanted.get()
            try:
                self._use(self._application(settings), _health_address(settings))
            except Exception as error:  # noqa: BLE001 - reported by the main thread
                if self._listener is None:
                    self._failure = error
                else:
                    logger.error("the health listener keeps its earlier settings: %s", error)  # noqa: TRY400 - the message has the cause

    def _use(self, application: WSGIApplication, address: tuple[str, int]) -> None:
        with self._lock:
            if self._is_stopped:
                return
            if self._listener is not None:
                self._listener.replace(application)
                if address == self._address:
                    return
            try:
                listener = HealthListener(application, *address)
            except OSError as error:
                if self._listener is None:
                    raise
                logger.error("the health listener cannot move to %s port %d: %s", *address, error)  # noqa: TRY400 - the message has the cause
                return
            if self._listener is not None:
                self._listener.stop()
            self._listener, self._address = listener, address
            listener.start()

    def _application(self, settings: Settings) -> WSGIApplication:
        # The certificates that the workers use, which have read them just before.
        certificate_ends = find_certificate_ends(settings)
        # Imported here, because its library is slow to load and only this command needs it.
        from authz_server.metrics.exporter import MetricsPage  # noqa: PLC0415
        from authz_server.serving.client_metrics import sample_clients  # noqa: PLC0415

        return create_health_application(
            settings,
            {"workers": self._supervisor.require_serving},
            degradations=self._supervisor.degradations,
            open_metrics=lambda services: MetricsPage(
                self._folder,
                services.key_store,
                services.clock,
                partial(sample_clients, services.database),
                certificate_ends=certificate_ends,
            ),
            seen=self._seen,
        )


def _health_address(settings: Settings) -> tuple[str, int]:
    return settings.server.health_host, settings.server.health_port


def run_server(settings: Settings, config: Path, folder: Path) -> None:
    """Serve until a signal; SIGHUP applies changed settings.

    Args:
        settings: the checked settings.
        config: the settings file.
        folder: the folder of the workers' metrics.

    Raises:
        click.ClickException: an address cannot be used, or no worker can serve.
        SettingsError: the authorities of clients cannot be read.
    """

    def reload() -> Settings:
        changed = load_settings(config)
        require_usable(changed)
        preflight.check_tls(changed)
        require_prepared(changed)
        health.require_free(changed)
        return changed

    try:
        supervisor = Supervisor(settings, str(config), reload)
        # The workers first: once the health listener runs, this process cannot fork them.
        with supervisor.started():
            health = HealthService(settings, folder, supervisor)
            try:
                supervisor.run(health.apply, health.require_started)
            finally:
                health.stop()
    except ServingError as error:
        raise click.ClickException(str(error)) from error
