"""Background jobs of a worker: cache refresh, purging rows, last-used times, key rotation."""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from random import SystemRandom

from sqlalchemy import or_, update
from sqlalchemy.exc import SQLAlchemyError

from authz_server.clients.authentication.authenticator import ClientAuthenticator
from authz_server.clients.models import ClientSecret
from authz_server.database.change_feed import ChangeFeed
from authz_server.database.clock import ClockGuard
from authz_server.database.errors import describe_failure, find_sentence
from authz_server.database.orm import Database
from authz_server.endpoints.refusals import RefusalRecorder
from authz_server.key_rings.jobs import KeyDuties
from authz_server.settings import RevocationSettings
from authz_server.tokens.purging import Purge
from authz_server.tokens.revocations import RevocationService
from keys.errors import KeysError
from keys.ring import KeyRings

logger = logging.getLogger(__name__)
#: The system's: forked processes would share the state of any other.
_random = SystemRandom()

_LAST_USED_INTERVAL_SECONDS = 60.0
_READERS_INTERVAL_SECONDS = 30.0
_REFUSALS_INTERVAL_SECONDS = 10.0
#: How long the end waits for a thread that is held up, for example by a key backend.
_ENDING_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Job:
    """Something done again and again.

    Attributes:
        act: does it.
        interval_seconds: how long after the last time.
        spread: by which part the interval varies, so that nodes started together drift apart.
    """

    act: Callable[[], object]
    interval_seconds: float
    spread: float = 0.0

    def next_after(self, moment: float) -> float:
        """Return when it is due after it was done at ``moment``."""
        part = _random.uniform(1 - self.spread, 1)
        return moment + part * self.interval_seconds


class Maintenance:
    """Two threads in each process that serves; their work is safe on many nodes at once.

    Jobs that a slow key backend can delay have a thread of their own: the memory stays fresh.

    Args:
        database: where to sweep.
        feed: is polled at its interval.
        key_rings: are read again at theirs.
        key_refresh_seconds: that interval.
        duties: what is done for the keys.
        tick_seconds: how often the keys are moved on.
        revocations: know what is due.
        authenticator: knows which secrets were used.
        refusals: counts those that repeat.
        settings: how often and how much to sweep.
        clock: returns the present time.
        clock_guard: compares it with the uptime; None: the clock is steady.

    Attributes:
        purge: deletes what nothing can need.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        database: Database,
        feed: ChangeFeed,
        key_rings: KeyRings,
        key_refresh_seconds: int,
        duties: KeyDuties,
        tick_seconds: float,
        revocations: RevocationService,
        authenticator: ClientAuthenticator,
        refusals: RefusalRecorder,
        settings: RevocationSettings,
        clock: Callable[[], datetime],
        clock_guard: ClockGuard | None = None,
    ) -> None:
        self._database = database
        self._feed = feed
        self._key_rings = key_rings
        self._key_refresh_seconds = key_refresh_seconds
        self._duties = duties
        self._tick_seconds = tick_seconds
        self.purge = Purge(
            database=database,
            revocations=revocations,
            others=duties,
            batch_rows=settings.sweep_batch_rows,
            clock=clock,
            guard=clock_guard,
        )
        self._authenticator = authenticator
        self._refusals = refusals
        self._settings = settings
        self._process_id = 0
        self._failures = RepeatedFailures()
        self._stopped = threading.Event()
        self._starting = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self, *, keys_at_once: bool = False) -> None:
        """Start the threads of this process unless they run.

        Args:
            keys_at_once: refresh and rotate the keys now for the first time, so that readiness
                soon reports whether their backends answer.
        """
        if self._process_id == os.getpid():
            return
        with self._starting:
            if self._process_id == os.getpid():
                return
            self._process_id = os.getpid()
            self._stopped = threading.Event()
            first = (self._key_rings.refresh, self._duties.report_node, self._tick)
            duties = partial(self._run_duties, first if keys_at_once else ())
            self._threads = [
                threading.Thread(target=run, name=name, daemon=True)
                for name, run in (("maintenance", self._run), ("key-duties", duties))
            ]
            for thread in self._threads:
                thread.start()

    def hold(self) -> None:
        """End the threads until the next :meth:`start`; wait for them a second at most."""
        self._end_threads()
        self._process_id = 0

    def stop(self) -> None:
        """End the threads and write what they still hold to the database."""
        self._end_threads()
        self._attempt(self.flush_last_used)
        self._attempt(self._record_counted_refusals)
        self._attempt(self._duties.end)

    def sweep(self) -> int:
        """Delete everything that is due, in small batches; return how many rows.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer; what was deleted stays so.
        """
        return self.purge.run(self._stopped.is_set).rows

    def flush_last_used(self) -> None:
        """Write down when secrets were last used.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer; those times are lost.
        """
        used = self._authenticator.take_last_used()
        if not used:
            return
        with self._database.transaction() as session:
            # In one order everywhere, so that two nodes never wait for each other.
            for secret_id in sorted(used):
                at = datetime.fromtimestamp(used[secret_id], UTC)
                older = or_(ClientSecret.last_used_at.is_(None), ClientSecret.last_used_at < at)
                session.execute(
                    update(ClientSecret)
                    .where(ClientSecret.id == secret_id, older)
                    .values(last_used_at=at)
                )

    def _end_threads(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(_ENDING_SECONDS)

    def _record_counted_refusals(self) -> None:
        self._refusals.flush(at_once=True)

    def _run(self) -> None:
        jobs = (
            Job(self._key_rings.refresh, self._key_refresh_seconds),
            Job(self.flush_last_used, _LAST_USED_INTERVAL_SECONDS),
            Job(self._duties.write_readers, _READERS_INTERVAL_SECONDS),
            Job(self._refusals.flush, _REFUSALS_INTERVAL_SECONDS),
            Job(self.sweep, self._settings.sweep_interval_seconds, spread=0.5),
        )
        self._repeat(jobs, self._feed.refresh_interval_seconds, self._feed.poll)

    def _run_duties(self, first: Sequence[Callable[[], object]]) -> None:
        for act in first:
            self._attempt(act)
        jobs = (
            Job(self._duties.report_node, self._key_refresh_seconds),
            Job(self._tick, self._tick_seconds, spread=0.5),
        )
        self._repeat(jobs, min(self._key_refresh_seconds, self._tick_seconds) / 2)

    def _tick(self) -> None:
        """Rotate the keys as far as it is time, unless the clock has leapt."""
        if self.purge.clock_is_trusted():
            self._duties.tick()

    def _repeat(
        self,
        jobs: Sequence[Job],
        wait_seconds: float,
        each_time: Callable[[], object] | None = None,
    ) -> None:
        stopped, started = self._stopped, time.monotonic()
        next_at = {job: job.next_after(started) for job in jobs}
        while not stopped.wait(wait_seconds):
            if each_time is not None:
                self._attempt(each_time)
            for job in jobs:
                now = time.monotonic()
                if now >= next_at[job]:
                    next_at[job] = job.next_after(now)
                    self._attempt(job.act)

    def _attempt(self, act: Callable[[], object]) -> None:
        job = act.__name__.lstrip("_")
        try:
            act()
        except (SQLAlchemyError, KeysError) as error:
            self._failures.note(job, find_sentence(error) or describe_failure(error))
        except Exception:
            logger.exception("%s failed", job)
        else:
            self._failures.clear(job)


class RepeatedFailures:
    """Logs a failure once, then at growing intervals, and when it is over; safe for threads.

    Jobs that fail for one reason, such as a database that starts, share its intervals.

    Args:
        monotonic: counts seconds.
    """

    FIRST_SECONDS = 2.0
    LONGEST_SECONDS = 60.0

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._pending: dict[str, _Failure] = {}
        self._silences: dict[str, _Silence] = {}

    def note(self, job: str, reason: str) -> None:
        """Count a failure of a job; log it unless its reason was logged lately."""
        with self._lock:
            now = self._monotonic()
            failure = self._pending.setdefault(job, _Failure())
            failure.times += 1
            failure.reason = reason
            silence = self._silences.setdefault(reason, _Silence(self.FIRST_SECONDS))
            if now < silence.until:
                return
            silence.until = now + silence.seconds
            silence.seconds = min(2 * silence.seconds, self.LONGEST_SECONDS)
            failure.is_logged = True
            logger.warning("%s failed (%d times in a row): %s", job, failure.times, reason)
            # Reasons may hold what differs each time.
            self._keep(lambda _, each: each.until >= now - self.LONGEST_SECONDS)

    def clear(self, job: str) -> None:
        """Log that a job works again, if its failure was logged."""
        with self._lock:
            failure = self._pending.pop(job, None)
            if failure is None:
                return
            reasons = {each.reason for each in self._pending.values()}
            self._keep(lambda reason, _: reason in reasons)
            if failure.is_logged:
                logger.info("%s works again after %d failures", job, failure.times)

    def _keep(self, condition: "Callable[[str, _Silence], bool]") -> None:
        self._silences = {
            reason: each for reason, each in self._silences.items() if condition(reason, each)
        }


@dataclass(slots=True)
class _Failure:
    times: int = 0
    reason: str = ""
    is_logged: bool = False


@dataclass(slots=True)
class _Silence:
    seconds: float
    until: float = 0.0
