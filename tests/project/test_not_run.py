"""The end of a run names the tests that were not run, and the packages that they need."""

from types import SimpleNamespace

import pytest

from support.not_run import pytest_terminal_summary, skip_as_not_run


class Terminal:
    def __init__(self, **stats):
        self.stats = stats
        self.lines = []

    def section(self, title):
        self.lines.append(title)

    def line(self, text):
        self.lines.append(text)


def test_skipped_and_partly_run_tests_are_named_once_each():
    with pytest.raises(pytest.skip.Exception) as skipped:
        skip_as_not_run("oauth4webapi", "node")
    reason = f"Skipped: {skipped.value}"
    terminal = Terminal(
        passed=[
            SimpleNamespace(
                user_properties=[("not_run", "not run: image build: podman"), ("cases", [])],
                skipped=False,
            )
        ],
        skipped=[
            SimpleNamespace(skipped=True, longrepr=("file", 1, reason), user_properties=[]),
            SimpleNamespace(skipped=True, longrepr=("file", 9, reason), user_properties=[]),
        ],
    )
    pytest_terminal_summary(terminal)
    assert terminal.lines == [
        "not run",
        "not run: image build: podman",
        "not run: oauth4webapi: node",
    ]


def test_nothing_is_said_when_everything_ran():
    terminal = Terminal(passed=[SimpleNamespace(user_properties=[], skipped=False)])
    pytest_terminal_summary(terminal)
    assert terminal.lines == []


def test_without_chromium_the_tests_in_a_browser_are_named(request, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.skip.Exception) as skipped:
        request.getfixturevalue("browser")
    assert str(skipped.value) == "not run: the console in a browser: chromium"
