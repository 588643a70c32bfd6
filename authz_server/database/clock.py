"""The database's time, and the time that has certainly passed.

While a clock is wrong, the server must not delete a revocation that is still needed. The database
stores the latest time that has certainly passed. That time follows the clock while the clock agrees
with the machine's uptime. After a leap of the clock it advances with the uptime, and it catches up
once the clock has run evenly for longer than any token lives.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import BigInteger, Delete, String, delete, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from authz_server.database.orm import Base, Database

#: A smaller difference between the clocks of the machine and the database is not corrected.
LEAST_CORRECTION_SECONDS = 1.0
#: A larger change of the clock against the uptime is a leap.
LEAP = timedelta(seconds=30)
#: A clock is trusted again after running evenly for this time, longer than any token lives.
TRUSTED_AFTER = timedelta(seconds=3_600 + 120)
#: A machine's reading is deleted after this time without an update.
_FORGOTTEN_AFTER = timedelta(days=30)
#: A clock that is slewed gains or loses less than one second in this many seconds.
_SLEWED = 1_000
_CLOCK_READINGS = 3
#: Two clock readings cannot be compared more precisely than this.
_CLOCK_RESOLUTION_SECONDS = 1e-4
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PROCESS = f"process:{secrets.token_hex(16)}"


class ClockMark(Base):
    """One row: the latest time that has certainly passed, in microseconds since 1970."""

    __tablename__ = "clock_mark"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    microseconds: Mapped[int] = mapped_column(BigInteger)


class ClockReading(Base):
    """The database's time and a machine's uptime at the machine's last check.

    All in microseconds; ``at_microseconds`` since 1970, ``steady_since_microseconds`` of uptime.
    """

    __tablename__ = "clock_reading"

    boot: Mapped[str] = mapped_column(String(100), primary_key=True)
    at_microseconds: Mapped[int] = mapped_column(BigInteger)
    uptime_microseconds: Mapped[int] = mapped_column(BigInteger)
    steady_since_microseconds: Mapped[int] = mapped_column(BigInteger)
    leapt: Mapped[bool]
    # The time that had certainly passed at that check; None: an earlier release made it.
    reached_microseconds: Mapped[int | None] = mapped_column(BigInteger)


@dataclass(frozen=True, slots=True)
class Uptime:
    """The uptime of a machine.

    Attributes:
        boot: identifies this boot of the machine, or this run of the container.
        microseconds: since the boot, including the time while the machine is suspended.
    """

    boot: str
    microseconds: int


def read_uptime() -> Uptime:
    """Return this machine's uptime, or this process's if the system does not report it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # A container may have an uptime of its own, which starts with its first process.
        first_process = Path("/proc/1/stat").read_text().rpartition(") ")[2].split()[19]
        seconds = Path("/proc/uptime").read_text().split()[0]
        return Uptime(f"{boot}:{first_process}", round(float(seconds) * 1_000_000))
    except (OSError, IndexError, ValueError):
        return Uptime(_PROCESS, time.monotonic_ns() // 1_000)


@dataclass(frozen=True, slots=True)
class ClockCheck:
    """The result of a clock check.

    Attributes:
        reached: the latest time that has certainly passed; never later than the clock.
        leap: the change of the clock against the uptime since the last check; 0 without a leap.
        trusted: whether the clock has not leapt, was corrected, or ran evenly long enough.
    """

    reached: datetime
    leap: timedelta
    trusted: bool


class ClockGuard:
    """Compares the clock with the uptime, across the processes of a machine.

    Args:
        clock: returns the present time by this machine's clock.
        uptime: returns the machine's uptime.
    """

    def __init__(
        self, clock: Callable[[], datetime], uptime: Callable[[], Uptime] = read_uptime
    ) -> None:
        self._clock = clock
        self._uptime = uptime

    def check(self, session: Session) -> ClockCheck:
        """Check the clock, and store the result in this transaction.

        The time is the database's; with SQLite, this machine's.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        offset = timedelta(seconds=measure_clock_offset_seconds(session))
        # The lock keeps other processes out until this transaction ends.
        mark = session.get(ClockMark, 1, with_for_update=True)
        now, uptime = self._now(offset), self._uptime()
        if mark is None:
            mark = ClockMark(id=1, microseconds=now)
            session.add(mark)
        known = session.get(ClockReading, uptime.boot)
        if known is None:
            session.execute(_forget(now))
            known = ClockReading(
                boot=uptime.boot, steady_since_microseconds=uptime.microseconds, leapt=False
            )
            session.add(known)
            elapsed = leap = 0
        else:
            elapsed = max(0, uptime.microseconds - known.uptime_microseconds)
            leap = now - known.at_microseconds - (uptime.microseconds - known.uptime_microseconds)
            allowed = LEAP // _MICROSECOND + elapsed // _SLEWED
            leap = leap if abs(leap) > allowed else 0
        if leap:
            known.leapt, known.steady_since_microseconds = True, uptime.microseconds
        steady = uptime.microseconds - known.steady_since_microseconds
        _advance(mark, known, now, elapsed, is_steady=steady >= TRUSTED_AFTER // _MICROSECOND)
        known.at_microseconds, known.uptime_microseconds = now, uptime.microseconds
        known.reached_microseconds = mark.microseconds
        return ClockCheck(
            reached=_EPOCH + min(now, mark.microseconds) * _MICROSECOND,
            leap=leap * _MICROSECOND,
            trusted=not known.leapt,
        )

    def is_stored_as_passed(self, session: Session, seconds: int) -> bool:
        """Return whether a time has passed by the last check; only read, without a lock.

        Args:
            session: reads the database.
            seconds: since 1970.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
        """
        marked = session.scalar(select(ClockMark.microseconds))
        if marked is None or marked < seconds * 1_000_000:
            return False
        # A clock that was set back since is behind the mark.
        offset = timedelta(seconds=measure_clock_offset_seconds(session))
        return self._now(offset) >= seconds * 1_000_000

    def _now(self, offset: timedelta) -> int:
        return _microseconds(self._clock() + offset)


_MICROSECOND = timedelta(microseconds=1)


def has_certainly_passed(guard: ClockGuard | None, database: Database, seconds: int) -> bool:
    """Return whether a time, in seconds since 1970, has certainly passed.

    The clock is checked, which writes, only if the last check does not show it.

    Args:
        guard: None: the clock by which it has passed is right.
        database: stores the checks.
        seconds: a time that has passed by this machine's clock, or seems to be far ahead.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    if guard is None:
        return True
    with database.reading() as session:
        if guard.is_stored_as_passed(session, seconds):
            return True
    with database.transaction() as session:
        return guard.check(session).reached.timestamp() >= seconds


def _advance(
    mark: ClockMark, known: ClockReading, now: int, elapsed: int, *, is_steady: bool
) -> None:
    """Advance the mark; trust a clock that was corrected.

    Since this machine's last check, at most the elapsed time has passed. What other machines have
    added meanwhile is a part of it.
    """
    if is_steady:
        mark.microseconds, known.leapt = now, False
        return
    if known.reached_microseconds is not None:
        mark.microseconds = max(mark.microseconds, min(now, known.reached_microseconds + elapsed))
    if abs(now - mark.microseconds) <= LEAP // _MICROSECOND:
        known.leapt = False


def _forget(now: int) -> Delete:
    oldest = now - _FORGOTTEN_AFTER // _MICROSECOND
    return delete(ClockReading).where(ClockReading.at_microseconds < oldest)


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def read_database_time(session: Session) -> datetime:
    """Return the present time of the database; SQLite uses this machine's clock."""
    if session.get_bind().dialect.name == "sqlite":
        return datetime.now(UTC)
    moment: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return moment.astimezone(UTC)


def measure_clock_offset_seconds(session: Session) -> float:
    """Return the database's clock minus this machine's system clock; 0 for SQLite.

    The reading with the shortest round trip counts, with an error of half the round trip. An offset
    within the error is returned as 0.
    """
    if session.get_bind().dialect.name == "sqlite":
        return 0.0
    session.connection()  # excluded from the timing
    took, offset = min(_read_clocks(session) for _ in range(_CLOCK_READINGS))
    return 0.0 if abs(offset) <= took / 2 + _CLOCK_RESOLUTION_SECONDS else offset


def _read_clocks(session: Session) -> tuple[float, float]:
    """Return the round-trip time of a reading in seconds, and the offset."""
    asked_at, began = time.time(), time.monotonic()
    there = read_database_time(session).timestamp()
    took = time.monotonic() - began
    return took, there - (asked_at + took / 2)
