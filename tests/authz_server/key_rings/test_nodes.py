"""The offset of this machine's clock from the database's."""

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from authz_server.database.clock import measure_clock_offset_seconds, read_database_time
from authz_server.database.orm import open_database
from authz_server.settings import DatabaseSettings


class ClockSession:
    """A session of a PostgreSQL whose clock is ahead, and whose answers take their time."""

    def __init__(self, ahead_seconds: float, delays: list[tuple[float, float]]) -> None:
        self._ahead, self._delays = timedelta(seconds=ahead_seconds), iter(delays)

    def get_bind(self):
        return SimpleNamespace(dialect=SimpleNamespace(name="postgresql"))

    def connection(self) -> None:
        time.sleep(0.2)  # a connection that has to be opened is not part of the reading

    def execute(self, _statement):
        there, back = next(self._delays)
        time.sleep(there)
        moment = datetime.now(UTC) + self._ahead
        time.sleep(back)
        return SimpleNamespace(scalar_one=lambda: moment)


@pytest.mark.parametrize("ahead", [0.0, 7.5, -7.5])
def test_half_of_the_way_there_and_back_is_taken_off(ahead):
    session = ClockSession(ahead, [(0.03, 0.03)] * 3)
    assert measure_clock_offset_seconds(session) == pytest.approx(ahead, abs=0.025)


@pytest.mark.parametrize("delays", [(0.0, 0.0), (0.05, 0.0), (0.0, 0.05)])
def test_an_offset_within_the_error_is_none(delays):
    """Or the present by the database would go back and forth between two measurements."""
    assert measure_clock_offset_seconds(ClockSession(0.0, [delays] * 3)) == 0.0


def test_a_database_on_this_machine_has_its_clock(database_url):
    database = open_database(DatabaseSettings(url=database_url))
    with database.reading() as session:
        assert {measure_clock_offset_seconds(session) for _ in range(100)} == {0.0}
    database.close()


def test_the_quickest_of_a_few_readings_counts():
    session = ClockSession(3.0, [(0.4, 0.0), (0.001, 0.001), (0.0, 0.4)])
    assert measure_clock_offset_seconds(session) == pytest.approx(3.0, abs=0.1)


def test_the_database_tells_the_time_with_its_zone(database_url):
    database = open_database(DatabaseSettings(url=database_url))
    with database.reading() as session:
        moments = [read_database_time(session) for _ in range(2)]
    database.close()
    assert moments[0] <= moments[1]
    assert moments[0].utcoffset() == timedelta(0)
    assert abs(moments[0] - datetime.now(UTC)) < timedelta(seconds=5)
