"""Payment windows: the wall clock of their zone decides, over midnight and changes of the clock."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest

from authz_server.clients.payment_windows import PaymentWindow, PaymentWindows, check_windows
from authz_server.errors import InvalidChangeError

OFFICE = {
    "days": ["mon", "tue", "wed", "thu", "fri"],
    "from": "08:00",
    "to": "17:30",
    "time_zone": "Africa/Nairobi",
}

#: Files beside the zones of the IANA database.
NOT_ZONES = ("localtime", "posixrules", "Factory", "posix/UTC", "right/Africa/Nairobi")


def windows(*given: dict) -> PaymentWindows:
    """Return windows as they come out of the database."""
    return PaymentWindows(msgspec.convert(check_windows(list(given)), tuple[PaymentWindow, ...]))


def at(text: str, zone: str = "Africa/Nairobi", *, fold: int = 0) -> float:
    """Return a local time as seconds since 1970; `fold` 1 is the second of a repeated hour."""
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return local.timestamp()


def seconds_open(found: PaymentWindows, now: float) -> float:
    """Return how long a window stays open; 0 if none is open."""
    return max(0, found.closes_at(now) - now)


@pytest.mark.parametrize(
    ("now", "is_open"),
    [
        ("2026-03-02T07:59:59.999", False),
        ("2026-03-02T08:00:00", True),
        ("2026-03-02T17:29:59.999", True),
        ("2026-03-02T17:30:00", False),
        ("2026-03-07T12:00:00", False),
        ("2026-03-08T12:00:00", False),
    ],
)
def test_a_window_is_open_from_its_beginning_to_before_its_end(now, is_open):
    """Monday the second of March 2026; Saturday and Sunday follow on the seventh and eighth."""
    assert (seconds_open(windows(OFFICE), at(now)) > 0) is is_open


def test_the_end_is_the_closing_time_within_the_hour_and_beyond_it_otherwise():
    """A token lives an hour at most, so that the exact end matters only within an hour."""
    found = windows(OFFICE)
    assert seconds_open(found, at("2026-03-02T17:00:00")) == 1_800
    assert seconds_open(found, at("2026-03-02T17:29:30.5")) == 29.5
    assert seconds_open(found, at("2026-03-02T09:00:00")) > 3_600


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_opens():
    """From Friday 22:00 to Saturday 06:00, and not from Saturday on."""
    night = {"days": ["fri"], "from": "22:00", "to": "06:00", "time_zone": "Asia/Kolkata"}
    found = windows(night)
    zone = "Asia/Kolkata"
    # 6 March 2026 is a Friday.
    assert seconds_open(found, at("2026-03-06T05:00:00", zone)) == 0
    assert seconds_open(found, at("2026-03-06T21:59:59", zone)) == 0
    assert seconds_open(found, at("2026-03-06T22:00:00", zone)) > 3_600
    assert seconds_open(found, at("2026-03-07T00:00:00", zone)) > 3_600
    assert seconds_open(found, at("2026-03-07T05:59:00", zone)) == 60
    assert seconds_open(found, at("2026-03-07T06:00:00", zone)) == 0
    assert seconds_open(found, at("2026-03-07T22:00:00", zone)) == 0


def test_windows_that_touch_are_one():
    """The end of a token is that of the last of them."""
    morning = {"from": "08:00", "to": "12:00", "time_zone": "UTC"}
    noon = {"from": "12:00", "to": "12:20", "time_zone": "UTC"}
    assert seconds_open(windows(morning, noon), at("2026-03-02T11:50:00", "UTC")) == 1_800
    whole_days = {"from": "00:00", "to": "24:00", "time_zone": "UTC"}
    assert seconds_open(windows(whole_days), at("2026-03-02T23:59:00", "UTC")) > 3_600


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2026-03-28", 7), ("2026-10-24", 9), ("2026-06-13", 8)],
)
def test_a_night_in_which_the_clock_changes_is_shorter_or_longer(day: str, hours: int):
    """Berlin skips an hour on 29 March 2026 and repeats one on 25 October."""
    zone = "Europe/Berlin"
    found = windows({"days": ["sat"], "from": "22:00", "to": "06:00", "time_zone": zone})
    began = at(f"{day}T22:00:00", zone)
    assert seconds_open(found, began - 1) == 0
    minutes = [m for m in range(24 * 60) if seconds_open(found, began + 60 * m) > 0]
    assert minutes == list(range(60 * hours))


def test_a_skipped_hour_is_in_no_window_and_a_repeated_one_is_in_it_twice():
    """The clock in Berlin shows 02:30 never on 29 March 2026, and twice on 25 October."""
    zone = "Europe/Berlin"
    found = windows({"days": ["sun"], "from": "02:00", "to": "02:45", "time_zone": zone})
    gap = at("2026-03-29T01:00:00", zone)
    assert not any(seconds_open(found, gap + 60 * minute) for minute in range(180))
    first, second = (at("2026-10-25T02:30:00", zone, fold=fold) for fold in (0, 1))
    assert second - first == 3_600
    assert (seconds_open(found, first), seconds_open(found, second)) == (900, 900)
    assert seconds_open(found, first + 900) == 0


def test_each_window_has_its_own_zone():
    """One hour of two zones."""
    hour = {"from": "09:00", "to": "10:00"}
    found = windows(hour | {"time_zone": "Asia/Tokyo"}, hour | {"time_zone": "America/Lima"})
    assert seconds_open(found, at("2026-03-02T00:30:00", "UTC")) == 1_800
    assert seconds_open(found, at("2026-03-02T14:30:00", "UTC")) == 1_800
    assert seconds_open(found, at("2026-03-02T09:30:00", "UTC")) == 0


def test_what_is_remembered_of_a_minute_is_not_used_for_another():
    """Clocks may be corrected backwards."""
    found = windows(OFFICE)
    now = at("2026-03-02T17:29:00")
    for seconds in (0, 30, 90, -10, 59, 60, 3_600, 0):
        fresh = windows(OFFICE).closes_at(now + seconds)
        assert found.closes_at(now + seconds) == fresh


def test_an_unknown_zone_is_never_open(caplog):
    """Another machine's time zone database may lack the zone: the client is refused."""
    window = PaymentWindow(opens="00:00", closes="24:00", time_zone="Mars/Olympus")
    found = PaymentWindows([window])
    assert found.closes_at(timedelta(days=20_000).total_seconds()) <= 20_000 * 86_400
    assert "Mars/Olympus" in caplog.text


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        "08:00-17:00",
        [OFFICE] * 29,
        [OFFICE | {"days": ["monday"]}],
        [OFFICE | {"from": "8:00"}],
        [OFFICE | {"from": "24:00"}],
        [OFFICE | {"to": "24:01"}],
        [OFFICE | {"to": "17:30\n"}],
        [OFFICE | {"to": "08:00"}],
        [OFFICE | {"time_zone": ""}],
        [OFFICE | {"time_zone": "Mars/Olympus"}],
        [OFFICE | {"time_zone": "../../etc/passwd"}],
        [OFFICE | {"time_zone": "/etc/localtime"}],
        *([OFFICE | {"time_zone": zone}] for zone in NOT_ZONES),
        [OFFICE | {"time_zone": "Africa"}],
        [OFFICE | {"until": "18:00"}],
        [{"from": "08:00", "to": "17:00"}],
    ],
)
def test_other_values_are_refused_with_the_name_of_the_property(value):
    """A slip is refused where it is made, not at the first payment."""
    with pytest.raises(InvalidChangeError, match="payment_windows"):
        check_windows(value)
