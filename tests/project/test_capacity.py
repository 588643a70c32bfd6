"""The capacity table of docs/operations.md follows from the results of the benchmarks."""

import json
import math
import re

from support.source_tree import ROOT

BUSY = 0.6
_TABLE_ROW = re.compile(r"^\| ([\d,]+) \| (\d+) \| (\d+) \| (\d+) \|$", re.MULTILINE)


def measured(part: str) -> tuple[float, float]:
    """Return the processor time of a request on PostgreSQL: the server's and the database's."""
    result = json.loads((ROOT / "bench" / "results" / f"{part}.json").read_text(encoding="utf-8"))
    table = next(
        each for each in result["groups"][0]["tables"] if each["title"] == "64 connections"
    )
    (row,) = [each for each in table["rows"] if each["name"] == "authz-server on PostgreSQL"]
    of_database = [each["database_processor_microseconds"] for each in row["rounds"]]
    return row["medians"]["processor_microseconds"], sorted(of_database)[len(of_database) // 2]


def test_the_capacity_table_follows_from_the_measured_times():
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").partition("## Capacity")[2]
    token, introspection, database = map(int, re.findall(r"(\d+) µs", text)[:3])
    for documented, found in (
        (token, measured("token")[0]),
        (introspection, measured("introspection")[0]),
        (database, measured("introspection")[1]),
    ):
        # Rounded up, and not by much: a new measurement may differ a little.
        assert 0.8 * documented < found < 1.1 * documented
    rows = [[int(cell.replace(",", "")) for cell in row] for row in _TABLE_ROW.findall(text)]
    assert len(rows) == 5
    for a_second, *cores in rows:
        expected = [
            math.ceil(a_second * microseconds / 1_000_000 / BUSY)
            for microseconds in (token, introspection, database)
        ]
        assert cores == expected
