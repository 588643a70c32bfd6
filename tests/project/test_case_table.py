"""The table of proven cases says what the passing tests showed, and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.case_table import numbers_in, read_cases
from support.source_tree import ROOT, python_files, syntax_tree

CASES = read_cases(ROOT / "tests" / "project" / "cases.toml")

SUITE = '''
import pytest

@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("path", ["/oauth2/token", "/oauth2/introspect"])
@pytest.mark.parametrize("method", ["client_secret_basic"])
def test_passes(database, path, method):
    """Case A1, B17"""

@pytest.mark.parametrize("database", ["sqlite"])
def test_fails(database):
    """Case A2"""
    assert database == "postgresql"

def test_names_none():
    """Casework about A3."""
'''


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Case A1", ["A1"]),
        ("It holds. Case A1, D36 and D37.", ["A1", "D36", "D37"]),
        ("Cases E57, E58; E59, and E61", ["E57", "E58", "E59", "E61"]),
        ("Case A1. Case A1, again Case L131", ["A1", "L131"]),
        ("Showcase A1, case A2, Case M1, Case 7", []),
    ],
)
def test_case_numbers_are_read_from_docstrings(text, numbers):
    assert numbers_in(text) == numbers


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> dict[str, list[str]]:
    """The rows written by a run of SUITE in two processes, each with its number first."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "conftest.py").write_text('pytest_plugins = ["support.case_table"]', "utf-8")
    (folder / "test_rfc6749_token.py").write_text(SUITE, "utf-8")
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-n",
            "2",
            "--case-table",
            "cases.md",
            *("-p", "xdist"),
        ],
        cwd=folder,
        # Plugins that this run does without take half of its time.
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 failed, 5 passed" in run.stdout, run.stdout + run.stderr
    lines = (folder / "cases.md").read_text("utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    return {row[0]: row[2:] for row in rows}


def test_proven_case_tells_its_tests_endpoints_methods_and_databases(table):
    assert table["A1"] == ["4", "introspection, token", "basic", "PostgreSQL, SQLite"]
    assert table["B17"] == table["A1"]


def test_failed_test_proves_nothing(table):
    assert table["A2"] == ["**none**", "", "", ""]


def test_every_case_has_a_row_and_says_what_it_waits_for(table):
    assert [case.number for case in CASES if case.number not in table] == []
    for case in CASES:
        if case.later:
            assert table[case.number][0] == case.later


def docstrings(path: Path) -> list[str]:
    functions = (n for n in syntax_tree(path).body if getattr(n, "name", "").startswith("test_"))
    return [getattr(f.body[0], "value", None).value for f in functions if _has_docstring(f)]


def _has_docstring(function) -> bool:
    return isinstance(getattr(getattr(function.body[0], "value", None), "value", None), str)


def test_tests_name_only_cases_that_are_listed():
    listed = {case.number for case in CASES}
    named = {
        (path.name, number)
        for path in python_files("tests")
        for text in docstrings(path)
        for number in numbers_in(text)
    }
    assert named
    assert {(file, number) for file, number in named if number not in listed} == set()
