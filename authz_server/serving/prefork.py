"""Support for WSGI servers that load an application in one process and fork others to serve.

Locks, connections and threads do not survive a fork: a lock of SQLAlchemy's pool that a thread
holds at the fork stays locked for ever. Each process therefore builds its own application.
"""

import importlib
import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from threading import Lock, Timer
from types import ModuleType
from typing import Generic, TypeVar
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from authz_server.settings import Settings, SettingsError
from keys.forks import on_fork, run_resets

logger = logging.getLogger(__name__)

A = TypeVar("A", bound=WSGIApplication)

#: A server that forks after loading does so within this time.
IDLE_SECONDS = 2.0
_RETRY_AFTER_SECONDS = 5
_THREAD_OPTIONS = frozenset({"enable-threads", "threads"})
_DECLARED = "AUTHZ_HEADER_NAMES_WITH_UNDERSCORE=dropped"


class PreforkApplication(Generic[A]):
    """A WSGI application that every process builds for itself.

    The first is built at once, so that errors show at the start. Background jobs start at the first
    request, when a forked process starts, or after some seconds without a fork. They are stopped
    before a fork, because a thread in the middle of a library call would leave locks behind.

    Args:
        build: returns a new application.
        begin: starts the background jobs of an application; called once for each.
        hold: stops the job threads; the application's next request restarts them.
        may_serve: returns whether requests may be answered. If not, no job starts, and jobs that
            run are held.
        idle_seconds: how long to wait for a first request or a fork.

    Raises:
        SettingsError: the server is uWSGI without threads.
        Exception: raised by ``build``.
    """

    def __init__(
        self,
        build: Callable[[], A],
        *,
        begin: Callable[[A], None],
        hold: Callable[[A], None],
        may_serve: Callable[[], bool] = lambda: True,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        uwsgi = find_uwsgi()
        if uwsgi is not None:
            require_threads(uwsgi.opt)
        self._build, self._begin, self._hold = build, begin, hold
        self._may_serve = may_serve
        self._lock = Lock()
        self._inherited: list[A] = []
        self._application = build()
        self._built_in = os.getpid()
        self._begun_in = 0
        self._is_serving = self._is_held = False
        self._timer: Timer | None = None
        on_fork(self._after_fork)
        os.register_at_fork(before=self._before_fork)
        if uwsgi is not None:
            _on_worker_start(uwsgi, self._begin_worker)
        if uwsgi is None or uwsgi.worker_id():
            self._begin_after(idle_seconds)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a WSGI request; 503 if this process cannot start or must not serve."""
        self._is_serving = True
        try:
            if not self._is_ready():
                return _refuse(start_response)
        except Exception:
            logger.exception("this process cannot start to serve")
            return _refuse(start_response)
        return self._application(environ, start_response)

    def _is_ready(self) -> bool:
        """Begin unless this process has begun; return False if it must not serve."""
        run_resets()
        if not self._may_serve():
            self._hold_once()
            return False
        self._is_held = False
        if self._begun_in != os.getpid():
            self._begin_here()
        return True

    def _hold_once(self) -> None:
        with self._lock:
            if self._begun_in == os.getpid() and not self._is_held:
                self._is_held = True
                self._hold(self._application)

    def _begin_here(self) -> None:
        with self._lock:
            process_id = os.getpid()
            if self._begun_in == process_id:
                return
            if self._built_in != process_id:
                # Keep it: only the process that opened a connection may close it.
                self._inherited.append(self._application)
                self._application = self._build()
                self._built_in = process_id
            self._begin(self._application)
            self._begun_in = process_id

    def _begin_after(self, seconds: float) -> None:
        self._timer = Timer(seconds, self._begin_idle)
        self._timer.name, self._timer.daemon = "begin", True
        self._timer.start()

    def _begin_worker(self) -> None:
        run_resets()
        if self._timer is None:
            self._begin_after(0)

    def _begin_idle(self) -> None:
        try:
            self._is_ready()
        except Exception:
            logger.exception("cannot start background jobs; the next request tries again")

    def _before_fork(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._begun_in == os.getpid() and not self._is_serving:
            self._hold(self._application)

    def _after_fork(self) -> None:
        self._lock = Lock()
        # The fork of a serving process is a helper: it starts at its first request, if any.
        if not self._is_serving:
            self._begin_after(0)
        self._is_serving = False


def find_uwsgi() -> ModuleType | None:
    """Return uWSGI's module, which exists only in its processes; else None."""
    try:
        return importlib.import_module("uwsgi")
    except ImportError:
        return None


def require_threads(options: Collection[str]) -> None:
    """Refuse uWSGI without threads, where background jobs would not run.

    Args:
        options: names of the options that are set, as in ``uwsgi.opt``.

    Raises:
        SettingsError: names the missing option.
    """
    if _THREAD_OPTIONS.isdisjoint(options):
        raise SettingsError(
            "uWSGI runs without threads, so keys, clients and revocations would not be kept up "
            "to date: set enable-threads = true (--enable-threads)"
        )


def require_dropped_names(options: Mapping[str, object], settings: Settings) -> None:
    """Refuse uWSGI behind a proxy that is not declared to drop header names with an underscore.

    uWSGI joins the ``X_Forwarded_For`` of a client with the ``X-Forwarded-For`` of the proxy before
    the application sees either.

    Args:
        options: the options that are set, as in ``uwsgi.opt``. A Python that runs uWSGI as a module
            does not see the variables that its settings add.
        settings: without trusted proxies, no such header counts.

    Raises:
        SettingsError: names the missing option.
    """
    if not (settings.server.trusted_proxies or settings.client_certificates.proxies):
        return
    given = options.get("env", ())
    if _DECLARED.encode() not in (given if isinstance(given, list) else [given]):
        raise SettingsError(
            "uWSGI joins X_Forwarded_For with X-Forwarded-For, by which a client could choose its "
            "address: let the proxy drop header names with an underscore (docs/operations.md), "
            f"and declare that it does: env = {_DECLARED}"
        )


def _on_worker_start(uwsgi: ModuleType, act: Callable[[], None]) -> None:
    """Call ``act`` in each uWSGI worker; uWSGI runs no Python fork hooks.

    Mules and spoolers do not serve, and are skipped.
    """
    earlier: Callable[[], object] | None = getattr(uwsgi, "post_fork_hook", None)

    def act_after_earlier() -> None:
        if earlier is not None:
            earlier()
        if uwsgi.worker_id():
            act()

    uwsgi.post_fork_hook = act_after_earlier  # type: ignore[attr-defined]


def _refuse(start_response: StartResponse) -> Iterable[bytes]:
    headers = [
        ("Content-Type", "application/json"),
        ("Cache-Control", "no-store"),
        ("Retry-After", str(_RETRY_AFTER_SECONDS)),
    ]
    start_response("503 Service Unavailable", headers)
    return [b'{"error":"temporarily_unavailable"}']
