"""The main process: owns the listening sockets and keeps the workers running."""

import gc
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from types import FrameType

from authz_server.serving.early_reload import early_reload
from authz_server.serving.last_connections import HANDSHAKE_SECONDS, turn_new_ones_away
from authz_server.serving.listeners import ServingError, open_all
from authz_server.serving.shares import remove_entry
from authz_server.serving.slots import Generation, Slot, make_slots, pause_after
from authz_server.serving.tls import TlsFiles, read_all_tls
from authz_server.serving.worker import CANNOT_SERVE, Order
from authz_server.serving.worker_processes import Worker, limit_memory_pools, start_worker
from authz_server.settings import Role, ServerSettings, Settings

logger = logging.getLogger(__name__)

#: An exit before this age is early.
YOUNG_SECONDS = 60.0
#: Time limit for new workers to serve.
START_SECONDS = 60.0
#: Time for a worker to stop after its requests in progress.
_ENDING_SECONDS = 3.0
_TICK_SECONDS = 0.5


#: Changed settings, and the files of their TLS.
_Read = tuple[Settings, Mapping[Role, TlsFiles | None]]


class Supervisor:
    """Runs the workers until SIGTERM or Ctrl-C.

    Args:
        settings: validated settings.
        settings_file: their path, for the audit record.
        reload: reads and validates the settings at SIGHUP and returns them; raises an error for
            the operator.

    Raises:
        ServingError: the address or a file of its TLS cannot be used.
        SettingsError: likewise, for the authorities of clients.
    """

    def __init__(
        self,
        settings: Settings,
        settings_file: str,
        reload: Callable[[], Settings],
    ) -> None:
        self._settings_file = settings_file
        self._reload = reload
        self._current = Generation(settings, open_all(settings), read_all_tls(settings))
        self._next: Generation | None = None
        self._leaving: list[Worker] = []
        self._ever_served = False
        self._stopping = False
        self._stopped = False
        self._reloading = False
        self._replacing = False
        self._reading: Future[_Read] | None = None
        self._wake_read, self._wake_write = os.pipe()

    @contextmanager
    def started(self) -> Iterator[None]:
        """Start the workers and handle signals; at the end, stop the workers.

        As long as this process has one thread, the workers are forks of it.
        """
        limit_memory_pools()
        # What is imported is neither examined nor copied in the forks.
        gc.collect()
        gc.freeze()
        with self._signals():
            self._current.slots = make_slots(self._current.settings)
            try:
                self._start_workers()
                yield
            finally:
                self._stop()

    def run(self, changed: Callable[[Settings], None], check: Callable[[], None]) -> None:
        """Serve until a signal to stop.

        Args:
            changed: called with new settings once their workers serve.
            check: called often; an exception of it ends the server.

        Raises:
            ServingError: no worker can serve with the settings.
        """
        try:
            while not self._stopping:
                self._step(changed)
                check()
        finally:
            self._stop()

    def require_serving(self) -> None:
        """Raise LookupError with the reasons unless every worker serves."""
        public = [slot for slot in self._current.slots if slot.role == "public"]
        found = dict.fromkeys(each for slot in public for each in slot.find_problems())
        if found or not public:
            raise LookupError(", ".join(found) or "no worker runs")

    def degradations(self) -> list[str]:
        """Return the failures that leave the workers able to serve."""
        workers = [slot.worker for slot in self._current.slots if slot.worker is not None]
        found = [each for worker in workers for each in worker.latest.degraded]
        if any(slot.role == "admin" and not slot.serves() for slot in self._current.slots):
            found.append("admin: its worker does not serve")
        return list(dict.fromkeys(found))

    def _step(self, changed: Callable[[Settings], None]) -> None:
        self._start_workers()
        self._wait()
        self._reap()
        self._let_accept()
        self._read_settings()
        self._finish_reload(changed)
        self._announce()
        self._kill_overdue()

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        by_descriptor = {worker.report: worker for worker in self._workers()}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(_TICK_SECONDS * 1_000):
            if descriptor == self._wake_read:
                os.read(self._wake_read, 1_024)
            else:
                by_descriptor[descriptor].read_reports()
        if any(worker.reported_at for worker in by_descriptor.values()):
            self._ever_served = True

    def _slots(self) -> Iterator[tuple[Generation, Slot]]:
        for generation in (self._current, self._next):
            if generation is not None:
                yield from ((generation, slot) for slot in generation.slots)

    def _workers(self) -> Iterator[Worker]:
        yield from (slot.worker for _, slot in self._slots() if slot.worker is not None)
        yield from self._leaving

    def _start_workers(self) -> None:
        now = time.monotonic()
        for generation, slot in self._slots():
            if slot.worker is None and now >= slot.start_at:
                try:
                    slot.worker = self._start(generation, slot)
                except OSError as error:
                    # Such as too many open files or processes; the other workers serve.
                    pause = pause_after(slot.deaths)
                    slot.deaths += 1
                    slot.start_at = now + pause
                    logger.error("a worker cannot start: %s; retrying in %.1f s", error, pause)  # noqa: TRY400 - the message has it
            elif slot.worker is not None and slot.worker.is_silent(now):
                # It does not accept connections, so the others leave none to it.
                remove_entry(slot.table, slot.place)

    def _start(self, generation: Generation, slot: Slot) -> Worker:
        report_read, report_write = os.pipe()
        os.set_blocking(report_read, False)
        descriptors = tuple(listener.fileno() for listener in generation.listeners[slot.role])
        order = Order(
            settings=generation.settings,
            settings_file=self._settings_file,
            listeners=descriptors,
            report=report_write,
            role=slot.role,
            table=slot.table,
            place=slot.place,
            tls=generation.tls[slot.role],
            # Until the new settings are in force, requests are answered by the earlier ones.
            waits=generation is self._next or generation.has_others_that_serve(slot),
        )
        try:
            process = start_worker(order, self._own_descriptors(slot, report_read))
        except OSError:
            os.close(report_read)
            raise
        finally:
            os.close(report_write)
        logger.info("worker %d started", process.pid)
        return Worker(process, report_read, time.monotonic(), waits=order.waits)

    def _own_descriptors(self, given: Slot, report: int) -> Iterator[int]:
        """Yield the open files of this process that a fork for the slot ``given`` must close."""
        yield from (self._wake_read, self._wake_write, report)
        for worker in self._workers():
            yield from worker.descriptors()
        for role, listeners in self._current.listeners.items():
            if role != given.role:
                yield from (listener.fileno() for listener in listeners)
        yield from {slot.table for _, slot in self._slots()} - {given.table}

    def _let_accept(self) -> None:
        """Let workers that replace others accept connections once they serve, or if none does."""
        for slot in self._current.slots:
            worker = slot.worker
            if (
                worker is not None
                and worker.waits
                and (slot.serves() or not self._current.has_others_that_serve(slot))
            ):
                worker.let_accept()

    def _reap(self) -> None:
        for worker in [each for each in self._leaving if each.process.poll() is not None]:
            self._leaving.remove(worker)
            worker.close()
        for _, slot in self._slots():
            if slot.worker is not None and slot.worker.process.poll() is not None:
                self._replace(slot, slot.worker)

    def _replace(self, slot: Slot, worker: Worker) -> None:
        now, status = time.monotonic(), worker.process.returncode
        worker.read_reports()
        worker.close()
        remove_entry(slot.table, slot.place)
        slot.worker = None
        if now - worker.started_at >= YOUNG_SECONDS:
            slot.deaths = 0
        pause = pause_after(slot.deaths)
        slot.deaths += 1
        slot.start_at = now + pause
        if status == CANNOT_SERVE and not self._ever_served:
            raise ServingError("no worker can serve with these settings: see above")
        logger.error(
            "worker %d exited with status %s: another starts in %.1f s",
            worker.process.pid,
            status,
            pause,
        )

    def _read_settings(self) -> None:
        """Read changed settings on a thread, because a plugin may start slowly and signals come."""
        if self._reloading and self._reading is None:
            self._reloading = False
            self._reading = Future()
            threading.Thread(target=self._read_into, args=(self._reading,), daemon=True).start()
        elif self._reading is not None and self._reading.done():
            reading, self._reading = self._reading, None
            self._begin_reload(reading)

    def _read_into(self, reading: Future[_Read]) -> None:
        try:
            settings = self._reload()
            reading.set_result((settings, read_all_tls(settings)))
        except BaseException as error:  # noqa: BLE001 - the main thread reports it
            reading.set_exception(error)
        with suppress(OSError):
            os.write(self._wake_write, b"r")

    def _begin_reload(self, reading: Future[_Read]) -> None:
        if self._next is not None:
            self._abandon_reload("another SIGHUP came")
        try:
            settings, tls = reading.result()
            listeners = open_all(settings, self._current.settings, self._current.listeners)
            slots = make_slots(settings)
        except Exception as error:  # noqa: BLE001 - after any error the old settings stay
            logger.error("the new settings cannot be used, the old ones stay: %s", error)  # noqa: TRY400 - the message has it
            return
        self._next = Generation(settings, listeners, tls, slots, time.monotonic())

    def _finish_reload(self, changed: Callable[[Settings], None]) -> None:
        following = self._next
        if following is None:
            return
        if any(slot.deaths for slot in following.slots):
            self._abandon_reload("a worker exited with them")
        elif all(slot.serves() for slot in following.slots):
            before, self._current, self._next = self._current, following, None
            for worker in filter(None, (slot.worker for slot in following.slots)):
                worker.let_accept()
            self._retire(before)
            changed(following.settings)
            self._replacing = True
        elif time.monotonic() - following.begun_at > START_SECONDS:
            self._abandon_reload(f"the workers did not serve within {START_SECONDS:.0f} s")

    def _announce(self) -> None:
        # Until then, a new connection may still reach a worker with the earlier settings.
        if self._replacing and not any(worker.latest.accepts for worker in self._leaving):
            self._replacing = False
            logger.info("the new settings are in force")

    def _abandon_reload(self, reason: str) -> None:
        if self._next is not None:
            logger.error("the new settings cannot be used, the old ones stay: %s", reason)
            failed, self._next = self._next, None
            self._retire(failed)

    def _retire(self, generation: Generation) -> None:
        closing = [
            listener
            for role, listeners in generation.listeners.items()
            if self._stopping or self._current.listeners.get(role) is not listeners
            for listener in listeners
        ]
        if closing:
            for listener in closing:
                turn_new_ones_away(listener)
            time.sleep(HANDSHAKE_SECONDS)
        for slot in generation.slots:
            if slot.worker is not None:
                self._terminate(slot.worker, generation.settings.server)
                self._leaving.append(slot.worker)
        for table in {slot.table for slot in generation.slots}:
            os.close(table)
        generation.slots = []
        for listener in closing:
            listener.close()

    def _stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        if self._next is not None:
            self._retire(self._next)
            self._next = None
        self._retire(self._current)
        while self._leaving:
            self._wait()
            self._reap()
            self._kill_overdue()

    @staticmethod
    def _terminate(worker: Worker, settings: ServerSettings) -> None:
        worker.ending_at = time.monotonic() + settings.shutdown_grace_seconds + _ENDING_SECONDS
        with suppress(ProcessLookupError):
            worker.process.terminate()

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for worker in self._leaving:
            if now > worker.ending_at:
                logger.warning("worker %d did not stop in time: killing it", worker.process.pid)
                worker.process.kill()
                worker.ending_at = now + _ENDING_SECONDS

    @contextmanager
    def _signals(self) -> Iterator[None]:
        os.set_blocking(self._wake_write, False)
        before = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        handlers = {
            signal.SIGTERM: self._on_stop,
            signal.SIGINT: self._on_stop,
            signal.SIGHUP: self._on_reload,
            signal.SIGCHLD: self._on_child,
        }
        previous = {number: signal.signal(number, act) for number, act in handlers.items()}
        self._reloading = self._reloading or early_reload.is_due
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            for number, act in previous.items():
                signal.signal(number, act)

    def _on_stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _on_reload(self, _signal: int, _frame: FrameType | None) -> None:
        self._reloading = True

    def _on_child(self, _signal: int, _frame: FrameType | None) -> None:
        """Do nothing: the signal wakes the loop, which checks the workers."""
