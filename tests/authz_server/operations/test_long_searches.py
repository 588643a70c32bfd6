"""Searches of large files: they begin near their time, and end within their time."""

import gzip
import os
from datetime import UTC, datetime, timedelta

import pytest

from authz_server.audit.time_limit import reading_at_most
from authz_server.operations.audit.files import Period, lines_backwards, lines_since
from authz_server.operations.audit.search import search_trail
from authz_server.operations.stored_records import RecordFilters

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def _line(number: int, seconds: float) -> bytes:
    at = (BEGIN + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")[:23]
    return (
        f'{{"time":"{at}Z","event":"token.issued","client_id":"c{number % 7}","scope":"a",'
        f'"jti":"j{number}","filler":"{"x" * 400}"}}\n'
    ).encode()


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A file of 20,000 records of four days, 9 MB; each tenth pair of lines is out of order."""
    path = tmp_path_factory.mktemp("large") / "audit.jsonl"
    lines = [_line(number, number * 17.28) for number in range(20_000)]
    for number in range(0, 19_990, 10):
        lines[number], lines[number + 1] = lines[number + 1], lines[number]
    path.write_bytes(b"".join(lines))
    return path


@pytest.mark.parametrize("hours", [-2, 0, 1, 47.5, 95, 96, 200])
def test_a_period_is_found_without_the_lines_after_it(large, hours):
    """Every line of the period is there, and few of those that are later than it."""
    since, until = BEGIN + timedelta(hours=hours - 1), BEGIN + timedelta(hours=hours)
    period = Period(since, until)
    expected = [line for line in lines_backwards(large) if line and not period.leaves_out(line)]
    read = list(period.find_lines(large))
    assert [line for line in read if line and not period.leaves_out(line)] == expected
    # An hour for clocks that were set back, and a block of the file.
    assert sum(map(period.is_later, read)) <= 3_600 / 17.28 + 2 * 1_048_576 / 400


def test_compressed_files_outside_of_the_period_are_not_read(tmp_path):
    """By the time of their last change, and by their first record."""
    path = tmp_path / "audit.jsonl.1.gz"
    path.write_bytes(gzip.compress(b"".join(_line(n, n) for n in range(10))))
    written_at = (BEGIN + timedelta(seconds=10)).timestamp()
    os.utime(path, (written_at, written_at))
    for hours, found in ((-10, False), (0.5, True), (10, False)):
        since = BEGIN + timedelta(hours=hours)
        period = Period(since - timedelta(hours=1), since)
        assert bool(list(period.find_lines(path))) == found


def test_a_search_that_takes_too_long_continues_where_it_ended(operator, large):
    """Page by page, each record is found once."""
    filters, found, searches = RecordFilters(client="c3"), [], 0
    while True:
        with reading_at_most(0):
            page = search_trail(operator.services, filters, files=[large], limit=10_000)
        searches += 1
        jtis = [each.detail["jti"] for each in page.records if each.source == large.name]
        found += [each for each in jtis if each not in found[-5:]]
        if page.searched_until is None:
            break
        assert page.more
        filters = RecordFilters(client="c3", until=page.searched_until + timedelta(microseconds=1))
    assert searches > 5
    assert len(found) == len(set(found)) == len(range(3, 20_000, 7))


def test_the_tokens_in_force_are_counted_without_the_records_of_days(large):
    """The first record, and those of the last two hours: older tokens have expired."""
    since = BEGIN + timedelta(hours=94)
    with large.open("rb") as file:
        whole = file.readlines()
        file.seek(0)
        read = list(lines_since(file, since))
    assert read[0] == whole[0]
    assert read[1:] == whole[len(whole) - len(read) + 1 :]
    wanted = [line for line in whole if not Period(since, None).leaves_out(line)]
    assert set(wanted) <= set(read)
    # An hour for clocks that were set back, and three blocks of the file.
    assert len(read) <= len(wanted) + 3_600 / 17.28 + 3 * 1_048_576 / 400 + 1
    with large.open("rb") as file:
        for before in (BEGIN, BEGIN - timedelta(days=9)):
            file.seek(0)
            assert list(lines_since(file, before)) == whole
