"""A clock that leaps: nothing is deleted that cannot be over, and an operator is told."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from authz_server.database.clock import ClockGuard, ClockMark, ClockReading, Uptime, read_uptime
from authz_server.tokens.models import RevokedToken
from authz_server.tokens.purging import Purge
from authz_server.tokens.revocations import RevocationService
from support.roles import attached

HOUR = timedelta(hours=1)
CLOSE = timedelta(seconds=2)


class ClockFixture:
    """A machine: its clock can be set, its uptime cannot."""

    def __init__(self, database) -> None:
        self.database = database
        self.now = datetime.now(UTC)
        self.uptime = 5_000_000_000
        self.boot = "first"
        self.alarms = []
        self.revocations = RevocationService(lambda: self.now, 3_600)

    def pass_time(self, by: timedelta, looks: int = 1) -> None:
        """Let time pass, with so many looks at the clock on the way."""
        for _ in range(looks):
            self.now += by / looks
            self.uptime += by / looks // timedelta(microseconds=1)
            self.look()

    def guard(self) -> ClockGuard:
        """Return the guard of one process of this machine."""
        return ClockGuard(lambda: self.now, lambda: Uptime(self.boot, self.uptime))

    def look(self):
        with self.database.transaction() as session:
            return self.guard().check(session)

    def purge(self) -> int:
        return self.purging().run().rows

    def purging(self) -> Purge:
        return Purge(
            database=self.database,
            revocations=self.revocations,
            purge_others=lambda _session, _now: 0,
            notify=self.alarms.append,
            batch_rows=500,
            clock=lambda: self.now,
            guard=self.guard(),
        )

    def revoke(self, jti: str, lifetime: timedelta) -> None:
        with self.database.transaction() as session:
            self.revocations.revoke_token(
                session, jti=jti, client_id="c", expires_at=self.now + lifetime, actor="c"
            )

    def is_revoked(self, jti: str) -> bool:
        with self.database.reading() as session:
            return bool(
                session.scalar(
                    select(func.count()).select_from(RevokedToken).where(RevokedToken.jti == jti)
                )
            )


@pytest.fixture
def world(database_url):
    with attached(database_url) as database:
        world = ClockFixture(database)
        with database.transaction() as session:
            session.get(ClockMark, 1).microseconds = int(world.now.timestamp() * 1_000_000)
        world.look()
        yield world


def test_a_clock_that_runs_evenly_is_followed(world):
    """Case Q223."""
    for _ in range(50):
        world.pass_time(timedelta(minutes=5))
        look = world.look()
        assert abs(look.reached - world.now) < CLOSE
        assert look.trusted
    world.pass_time(timedelta(days=3))  # no process ran meanwhile, but the machine did
    assert abs(world.look().reached - world.now) < CLOSE


def test_two_hours_ahead_for_nine_seconds_delete_no_revocation(world):
    """Case Q223."""
    world.revoke("mine", timedelta(minutes=15))
    world.now += 2 * HOUR
    for _ in range(3):
        assert world.purge() == 0
        world.pass_time(timedelta(seconds=3))
    assert world.is_revoked("mine")
    assert {alarm.event for alarm in world.alarms} == {"clock.leapt"}
    assert "+7200 s" in world.alarms[0].detail
    world.now -= 2 * HOUR
    assert world.purge() == 0
    assert world.is_revoked("mine")
    # Put right: it is believed at once, and rows go when their time has come.
    assert world.look().trusted
    world.pass_time(timedelta(minutes=16))
    assert world.purge() == 0
    world.pass_time(timedelta(minutes=3))
    assert world.purge() == 1


def test_another_process_of_the_machine_knows_of_the_leap(world):
    """Case Q223: a command that begins while the clock is wrong."""
    world.revoke("mine", timedelta(minutes=15))
    world.pass_time(timedelta(minutes=1))
    world.now += 2 * HOUR
    assert world.purging().run().trusted is False
    assert world.is_revoked("mine")


def test_a_clock_that_stays_ahead_is_believed_when_no_token_of_before_lives(world):
    """Case Q223."""
    world.revoke("mine", timedelta(minutes=15))
    world.now += 2 * HOUR
    world.look()
    world.pass_time(timedelta(minutes=61), looks=20)
    assert not world.look().trusted
    world.pass_time(timedelta(minutes=2))
    assert world.look().trusted
    assert abs(world.look().reached - world.now) < CLOSE
    assert world.purge() == 1


def test_a_clock_put_back_deletes_nothing_early(world):
    """Case Q223."""
    world.revoke("mine", timedelta(minutes=15))
    world.now -= 2 * HOUR
    look = world.look()
    assert look.leap == pytest.approx(-2 * HOUR, abs=CLOSE)
    assert look.reached <= world.now + CLOSE
    assert not look.trusted
    assert world.purge() == 0


def test_a_start_after_days_believes_the_clock_when_it_ran_evenly_for_an_hour(world):
    """Case Q223: the machine cannot know how long it was off."""
    world.revoke("mine", timedelta(minutes=15))
    world.boot, world.uptime = "second", 1_000_000
    world.now += timedelta(days=3)
    assert world.purge() == 0
    assert world.look().trusted  # nothing is wrong that an operator could mend
    world.pass_time(timedelta(minutes=63), looks=4)
    assert world.purge() == 1


def test_what_ended_before_goes_at_once_after_a_start(world):
    """Case Q223."""
    world.revoke("over", timedelta(minutes=-10))
    world.boot, world.uptime = "second", 1_000_000
    world.now += timedelta(days=3)
    assert world.purge() == 1


def test_a_clock_that_is_put_right_gradually_has_not_leapt(world):
    """Case Q223."""
    for _ in range(10):
        world.now += timedelta(seconds=40)  # 0.05 % of the day that passes
        world.pass_time(timedelta(days=1))
        assert world.look().trusted


def test_readings_of_machines_that_are_gone_go(world):
    for number in range(3):
        world.boot = f"machine-{number}"
        world.look()
    world.now += timedelta(days=31)
    world.boot = "new"
    world.look()
    with world.database.reading() as session:
        assert session.scalars(select(ClockReading.boot)).all() == ["new"]


def test_the_uptime_of_this_machine_goes_on():
    first = read_uptime()
    time.sleep(0.05)
    second = read_uptime()
    assert first.boot == second.boot
    assert 0 < second.microseconds - first.microseconds < 5_000_000


def test_without_the_files_of_linux_the_uptime_is_the_processs(monkeypatch):
    def refuse(*_arguments, **_named):
        raise FileNotFoundError

    monkeypatch.setattr("authz_server.database.clock.Path.read_text", refuse)
    first, second = read_uptime(), read_uptime()
    assert first.boot == second.boot
    assert first.boot.startswith("process:")
    assert second.microseconds >= first.microseconds


@pytest.mark.parametrize("machines", [2, 10])
def test_machines_that_look_in_turn_add_up_to_no_more_time_than_has_passed(world, machines):
    """Each has been up as long as the others: what one adds, the others must not add again."""
    boots = [f"machine-{number}" for number in range(machines)]
    for world.boot in boots:
        world.look()
    world.revoke("mine", timedelta(minutes=15))
    right = world.now
    world.now += 2 * HOUR
    minute = timedelta(minutes=1)
    for number in range(40):
        # A machine that starts meanwhile has no earlier look to compare with.
        for world.boot in [*boots, f"started-{number}"]:
            reached = world.look().reached
            assert reached <= right + CLOSE
        world.now, right = world.now + minute, right + minute
        world.uptime += 60_000_000
        if number < 15:
            world.purge()
            assert world.is_revoked("mine")
    assert right - reached < timedelta(minutes=2), "the time that passes is followed"


def test_a_look_of_an_earlier_release_adds_no_time(world):
    world.revoke("mine", timedelta(minutes=15))
    with world.database.transaction() as session:
        session.get(ClockReading, world.boot).reached_microseconds = None
    before = world.now
    world.now += 2 * HOUR
    world.uptime += 600_000_000
    assert world.look().reached <= before + CLOSE
