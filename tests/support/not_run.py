"""Names, at the end of a run, what could not run here and which system package would let it."""

import re
from typing import NoReturn

import pytest

_PROPERTY = "not_run"
_PATTERN = re.compile(r"not run: .+?: .+", re.DOTALL)


def skip_as_not_run(name: str, package: str) -> NoReturn:
    """End the test as not run: `name` is what it would have shown, `package` what it lacks."""
    pytest.skip(f"not run: {name}: {package}")


@pytest.fixture
def not_run(record_property):
    """A function of (name, package) for a part of a test that could not run; the test goes on."""

    def note(name: str, package: str) -> None:
        record_property(_PROPERTY, f"not run: {name}: {package}")

    return note


def pytest_terminal_summary(terminalreporter) -> None:
    """Print one line for each thing that was not run."""
    lines = {line for reports in terminalreporter.stats.values() for line in _lines(reports)}
    if lines:
        terminalreporter.section("not run")
    for line in sorted(lines):
        terminalreporter.line(line)


def _lines(reports):
    for report in reports:
        yield from (
            text for key, text in getattr(report, "user_properties", ()) if key == _PROPERTY
        )
        reason = report.longrepr[2] if getattr(report, "skipped", False) else ""
        if found := _PATTERN.search(str(reason)):
            yield found.group()
