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
from typing import Literal

from sqlalchemy import or_, update
from sqlalchemy.exc import SQLAlchemyError

from authz_server.audit.checkpoints import AuditCheckpoints
from authz_server.audit.latest_change import LatestChangeFile
from authz_server.audit.notifier import AuditUnavailable
from authz_server.audit.pending_changes import ChangeDuties
from authz_server.audit.restored_database import RestoredDatabaseError, keep_latest_change
from authz_server.clients.authentication.authenticator import ClientAuthenticator
from authz_server.clients.models import ClientSecret
from authz_server.clients.secret_duties import SecretDuties
from authz_server.database.change_feed import ChangeFeed
from authz_server.database.errors import describe_failure, find_sentence
from authz_server.database.orm import Database
from authz_server.endpoints.refusals import RefusalRecorder
from authz_server.key_rings.jobs import KeyJobs
from authz_server.scopes.uses import ScopeUses
from authz_server.tokens.event_streams.pushing import PUSH_INTERVAL_SECONDS, EventPusher
from authz_server.tokens.purging import Purge
from keys.errors import KeysError
from keys.forks import forget_at_exit
from keys.ring import KeyRings

logger = logging.getLogger(__name__)
#: The system's generator: forked processes would share the state of any other.
_random = SystemRandom()

_LAST_USED_INTERVAL_SECONDS = 60.0
_READERS_INTERVAL_SECONDS = 30.0
_REFUSALS_INTERVAL_SECONDS = 10.0
_SECRETS_INTERVAL_SECONDS = 600.0
_CHANGES_INTERVAL_SECONDS = 60.0
_LATEST_CHANGE_INTERVAL_SECONDS = 5.0
_SEALING_INTERVAL_SECONDS = 10.0
_CHECKPOINT_INTERVAL_SECONDS = 60.0
#: How long stopping waits for a blocked thread, for example by a key backend.
_STOP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Job:
    """A periodic job.

    Attributes:
        act: runs the job.
        interval_seconds: the interval between runs.
        spread: the fraction by which the interval varies, so that nodes started together diverge.
    """

    act: Callable[[], object]
    interval_seconds: float
    spread: float = 0.0

    def next_after(self, moment: float) -> float:
        """Return the time of the next run after one at ``moment``."""
        part = _random.uniform(1 - self.spread, 1)
        return moment + part * self.interval_seconds


class Maintenance:
    """Runs the jobs on two threads in each serving process; safe on many nodes at once.

    Jobs that a slow key backend can delay have a thread of their own, so that caches stay fresh.

    Args:
        database: stores last-used times and the use of scopes.
        feed: the change feed, polled at its interval.
        key_rings: the rings, loaded at ``key_refresh_seconds``; their keys are proved.
        key_refresh_seconds: the refresh interval of the rings.
        key_jobs: rotates keys, and does the other periodic work of the rings.
        tick_seconds: the interval of key rotation ticks.
        authenticator: knows the last use of secrets.
        refusals: counts repeated refusals.
        purge: deletes expired rows.
        purge_seconds: the interval of the purge.
        pepper_fingerprint: the fingerprint of the pepper, which a used secret was made with.
        secret_duties: ends and announces secrets; None: neither is done.
        change_duties: expires changes that wait for an approval, and warns of acts without one;
            None: neither is done.
        event_pusher: pushes security events; None: none are pushed.
        checkpoints: seals and signs audit records; None: neither is done.
        scope_uses: knows the use of scopes; None: it is not stored.
        latest_change: keeps the latest stored change; None: it is not kept.

    Attributes:
        purge: deletes expired rows.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        database: Database,
        feed: ChangeFeed,
        key_rings: KeyRings,
        key_refresh_seconds: int,
        key_jobs: KeyJobs,
        tick_seconds: float,
        authenticator: ClientAuthenticator,
        refusals: RefusalRecorder,
        purge: Purge,
        purge_seconds: float,
        pepper_fingerprint: str,
        secret_duties: SecretDuties | None = None,
        change_duties: ChangeDuties | None = None,
        event_pusher: EventPusher | None = None,
        checkpoints: AuditCheckpoints | None = None,
        scope_uses: ScopeUses | None = None,
        latest_change: LatestChangeFile | None = None,
    ) -> None:
        self._database = database
        self._feed = feed
        self._key_rings = key_rings
        self._key_refresh_seconds = key_refresh_seconds
        self._key_jobs = key_jobs
        self._tick_seconds = tick_seconds
        self.purge = purge
        self._purge_seconds = purge_seconds
        self._pepper_fingerprint = pepper_fingerprint
        self._authenticator = authenticator
        self._refusals = refusals
        self._secret_duties = secret_duties
        self._change_duties = change_duties
        self._event_pusher = event_pusher
        self._checkpoints = checkpoints
        self._scope_uses = scope_uses
        self._latest_change = latest_change
        self._process_id = 0
        self._failures = RepeatedFailures()
        self._stopped = threading.Event()
        self._starting = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self, *, keys_at_once: bool = False) -> None:
        """Start the threads of this process unless they run.

        Args:
            keys_at_once: refresh and rotate the keys immediately, so that readiness soon reports
                the state of their backends.
        """
        if self._process_id == os.getpid():
            return
        with self._starting:
            if self._process_id == os.getpid():
                return
            self._process_id = os.getpid()
            self._stopped = threading.Event()
            first = (self._key_rings.refresh, self._key_jobs.report_node, self._tick)
            works: list[tuple[str, Callable[[], None]]] = [
                ("maintenance", self._run),
                ("key-jobs", partial(self._run_key_jobs, first if keys_at_once else ())),
                *self._further_threads(),
            ]
            self._threads = [
                threading.Thread(target=run, name=name, daemon=True) for name, run in works
            ]
            for thread in self._threads:
                thread.start()

    def hold(self) -> None:
        """Stop the threads until the next :meth:`start`, waiting a second at most."""
        self._stop_threads()
        self._process_id = 0

    def stop(self) -> None:
        """Stop the threads and write pending data to the database, once for this process."""
        forget_at_exit(self.stop)
        self._stop_threads()
        self._attempt(self.flush_last_used)
        self._attempt(self.store_scope_uses)
        self._attempt(self._record_counted_refusals)
        self._attempt(self._key_jobs.end)
        self._attempt(self._keep_latest_change)
        if self._checkpoints is not None:
            self._close_audit_chain(self._checkpoints)

    def sweep(self) -> int:
        """Purge all expired rows in small batches; return the number of rows.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer; deleted rows stay deleted.
        """
        return self.purge.run(self._stopped.is_set).rows

    def flush_last_used(self) -> None:
        """Write the time and the source address of the last use of secrets.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer; the uses are lost.
        """
        used = self._authenticator.take_last_used()
        if not used:
            return
        with self._database.transaction() as session:
            # The same order on every node prevents deadlocks.
            for secret_id in sorted(used):
                seconds, address = used[secret_id]
                at = datetime.fromtimestamp(seconds, UTC)
                older = or_(ClientSecret.last_used_at.is_(None), ClientSecret.last_used_at < at)
                session.execute(
                    update(ClientSecret)
                    .where(ClientSecret.id == secret_id, older)
                    .values(
                        last_used_at=at,
                        last_used_from=address[:64] or None,
                        pepper_fingerprint=self._pepper_fingerprint,
                    )
                )

    def _further_threads(self) -> Sequence[tuple[str, Callable[[], None]]]:
        pusher = self._event_pusher
        if pusher is None:
            return ()
        return [("event-push", partial(self._repeat, (), PUSH_INTERVAL_SECONDS, pusher.push))]

    def store_scope_uses(self) -> None:
        """Store which clients used which scopes.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer; the uses are lost.
        """
        if self._scope_uses is not None:
            self._scope_uses.store(self._database.transaction, datetime.now(UTC))

    def _keep_latest_change(self) -> None:
        """Keep what other nodes changed, too: each has a file of its own."""
        if self._latest_change is not None:
            keep_latest_change(self._database, self._latest_change)

    def _stop_threads(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(_STOP_SECONDS)

    def _record_counted_refusals(self) -> None:
        self._refusals.flush(at_once=True)

    def _run(self) -> None:
        jobs = (
            *self._secret_jobs(),
            *self._change_jobs(),
            *self._audit_jobs("seal_audit_records", _SEALING_INTERVAL_SECONDS),
            Job(self._key_rings.load, self._key_refresh_seconds),
            Job(self._keep_latest_change, _LATEST_CHANGE_INTERVAL_SECONDS, spread=0.5),
            Job(self.flush_last_used, _LAST_USED_INTERVAL_SECONDS),
            Job(self.store_scope_uses, _LAST_USED_INTERVAL_SECONDS),
            Job(self._key_jobs.write_readers, _READERS_INTERVAL_SECONDS),
            Job(self._refusals.flush, _REFUSALS_INTERVAL_SECONDS),
            Job(self.sweep, self._purge_seconds, spread=0.5),
        )
        self._repeat(jobs, self._feed.refresh_interval_seconds, self._feed.poll)

    def _secret_jobs(self) -> Sequence[Job]:
        duties = self._secret_duties
        acts = (duties.end_unused_secrets, duties.announce_due_secrets) if duties else ()
        return [Job(act, _SECRETS_INTERVAL_SECONDS, spread=0.5) for act in acts]

    def _change_jobs(self) -> Sequence[Job]:
        duties = self._change_duties
        acts = (duties.expire_changes, duties.warn_of_unconfirmed) if duties else ()
        return [Job(act, _CHANGES_INTERVAL_SECONDS, spread=0.5) for act in acts]

    def _audit_jobs(
        self, name: Literal["seal_audit_records", "write_audit_checkpoint"], interval_seconds: float
    ) -> Sequence[Job]:
        if self._checkpoints is None:
            return ()
        return [Job(getattr(self._checkpoints, name), interval_seconds, spread=0.5)]

    def _run_key_jobs(self, first: Sequence[Callable[[], object]]) -> None:
        for act in first:
            self._attempt(act)
        jobs = (
            Job(self._key_jobs.report_node, self._key_refresh_seconds),
            Job(self._tick, self._tick_seconds, spread=0.5),
            *self._audit_jobs("write_audit_checkpoint", _CHECKPOINT_INTERVAL_SECONDS),
        )
        wait_seconds = min(self._key_refresh_seconds, self._tick_seconds) / 2
        # Here, and not where the rings are loaded: it waits for the backends.
        self._repeat(jobs, wait_seconds, self._key_rings.prove_candidates)

    def _tick(self) -> None:
        """Run a rotation tick; while the clock has leapt, only follow withdrawals."""
        if self.purge.clock_is_trusted():
            self._key_jobs.tick()
        else:
            self._key_jobs.withdraw()

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

    def _close_audit_chain(self, checkpoints: AuditCheckpoints) -> None:
        """Write the last record of the process."""
        try:
            checkpoints.close_audit_chain()
        except (SQLAlchemyError, KeysError, AuditUnavailable) as error:
            # Nothing is lost: the next process on this node signs the end of the chain.
            logger.info("the end of the audit chain is not signed: %s", describe_failure(error))

    def _attempt(self, act: Callable[[], object]) -> None:
        job = act.__name__.lstrip("_")
        try:
            act()
        except (SQLAlchemyError, KeysError, RestoredDatabaseError) as error:
            self._failures.note(job, find_sentence(error) or describe_failure(error))
        except Exception:
            logger.exception("%s failed", job)
        else:
            self._failures.clear(job)


class RepeatedFailures:
    """Logs a failure once, then at growing intervals, and its end; thread-safe.

    Jobs that fail for the same reason, such as an unavailable database, share the intervals.

    Args:
        monotonic: returns monotonic seconds.
    """

    FIRST_SECONDS = 2.0
    LONGEST_SECONDS = 60.0

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._pending: dict[str, _Failure] = {}
        self._silences: dict[str, _Silence] = {}

    def note(self, job: str, reason: str) -> None:
        """Count a failure of a job; log it unless its reason was logged recently."""
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
            # Drop old entries: reasons may contain varying details.
            self._keep(lambda _, each: each.until >= now - self.LONGEST_SECONDS)

    def clear(self, job: str) -> None:
        """Log that a job succeeds again, if its failure was logged."""
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
