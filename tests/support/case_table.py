"""Which numbered cases the passing tests prove, and where: a table written from the test run.

A test names its cases in its docstring (``Case A1``, ``Case D36, D37``). Databases, endpoints and
client authentication methods are read from the ids of its parameters; endpoints, where no id names
one, from the specification that names its file.
"""

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CASE_LIST = re.compile(r"\bCases?\s+([A-LP-Z]\d+(?:(?:,|;|\s+and|,\s+and)?\s+[A-LP-Z]\d+)*)")
CASE_NUMBER = re.compile(r"[A-LP-Z]\d+")
PROPERTY = "cases"

DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "postgres": "PostgreSQL"}
METHODS = {
    "client_secret_basic": "basic",
    "client_secret_post": "post",
    "client_secret_jwt": "client_secret_jwt",
    "private_key_jwt": "private_key_jwt",
    "basic": "basic",
    "post": "post",
}
ENDPOINTS = {
    "token": "token",
    "plain": "token",
    "oauth2/token": "token",
    "g2p": "token (G2P)",
    "oauth2/client/token": "token (G2P)",
    "introspect": "introspection",
    "introspection": "introspection",
    "oauth2/introspect": "introspection",
    "revoke": "revocation",
    "revocation": "revocation",
    "oauth2/revoke": "revocation",
    "jwks": "JWKS",
    "metadata": "metadata",
    "health": "health",
}
FILE_ENDPOINTS = {
    "rfc6749": "token",
    "g2p": "token (G2P)",
    "rfc7662": "introspection",
    "rfc7009": "revocation",
    "rfc7517": "JWKS",
    "rfc8414": "metadata",
    "rfc8707": "token",
    "rfc9068": "token",
    "rfc9449": "token",
    "rfc9701": "introspection",
    "discovery": "metadata",
    "health": "health",
}


@dataclass
class Proof:
    """What the passing tests say about one case."""

    tests: set[str] = field(default_factory=set)
    databases: set[str] = field(default_factory=set)
    endpoints: set[str] = field(default_factory=set)
    methods: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Case:
    """One line of cases.toml; `later` says what has to be built before it can occur."""

    number: str
    title: str
    later: str


class CaseTable:
    """Gathers the proofs in the process that receives every report."""

    def __init__(self, cases: list[Case]) -> None:
        self.cases = cases
        self.proofs: dict[str, Proof] = defaultdict(Proof)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" or not report.passed:
            return
        for name, value in report.user_properties:
            if name == PROPERTY:
                self._add(report.nodeid, value)

    def _add(self, nodeid: str, value: dict[str, list[str]]) -> None:
        for number in value["numbers"]:
            proof = self.proofs[number]
            proof.tests.add(nodeid)
            proof.databases.update(value["databases"])
            proof.endpoints.update(value["endpoints"])
            proof.methods.update(value["methods"])

    def unproven(self) -> list[str]:
        return [c.number for c in self.cases if not c.later and c.number not in self.proofs]

    def render(self) -> str:
        lines = [
            "# The cases and where the tests prove them",
            "",
            "Written by `make cases` from the tests that passed; numbers have gaps.",
            "A dash: the tests of this case do not differ on that side.",
            "",
            "| case | what | tests | endpoints | client authentication | databases |",
            "| --- | --- | --- | --- | --- | --- |",
            *(self._row(case) for case in self.cases),
            "",
        ]
        return "\n".join(lines)

    def _row(self, case: Case) -> str:
        proof = self.proofs.get(case.number)
        if proof is None:
            return f"| {case.number} | {case.title} | {case.later or '**none**'} | | | |"
        title = f"{case.title} (in part: {case.later})" if case.later else case.title
        sides = [proof.endpoints, proof.methods, proof.databases]
        told = " | ".join(", ".join(sorted(side)) or "-" for side in sides)
        return f"| {case.number} | {title} | {len(proof.tests)} | {told} |"


def numbers_in(text: str) -> list[str]:
    """Return the case numbers that a docstring names, each once, in its order."""
    listed = CASE_LIST.finditer(text)
    return list(dict.fromkeys(n for match in listed for n in CASE_NUMBER.findall(match.group(1))))


def read_cases(path: Path) -> list[Case]:
    """Return the cases of a cases.toml in its order."""
    groups = tomllib.loads(path.read_text(encoding="utf-8"))
    return list(_cases_of(groups))


def _cases_of(groups: dict) -> Iterator[Case]:
    for letter, group in groups.items():
        later = group.get("later", {})
        for number, title in group["cases"].items():
            yield Case(f"{letter}{number}", title, later.get(number, ""))


def _named(words: Iterable[str], vocabulary: dict[str, str]) -> list[str]:
    return sorted({vocabulary[word] for word in words if word in vocabulary})


def _words(item: pytest.Item) -> set[str]:
    """Return the ids of a test's parameters, whole and in their parts."""
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return set()
    ids = {callspec.id, *callspec.id.split("-")}
    return {word.strip("/") for word in ids}


def describe(item: pytest.Item) -> dict[str, list[str]] | None:
    """Return what the table keeps of a test, or None where it names no case."""
    numbers = numbers_in(getattr(getattr(item, "function", None), "__doc__", None) or "")
    if not numbers:
        return None
    words = _words(item)
    stem = item.path.stem.removeprefix("test_").split("_")
    return {
        "numbers": numbers,
        "databases": _named(words, DATABASES),
        "endpoints": _named(words, ENDPOINTS) or _named(stem, FILE_ENDPOINTS),
        "methods": _named(words, METHODS),
    }


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--case-table", metavar="FILE", help="write the table of proven cases here")


def pytest_configure(config: pytest.Config) -> None:
    cases = read_cases(Path(__file__).parents[1] / "project" / "cases.toml")
    config.pluginmanager.register(CaseTable(cases), "case_table")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Describe a test where it runs: each worker process collects all of them."""
    described = describe(item)
    if described is not None:
        item.user_properties.append((PROPERTY, described))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    table = config.pluginmanager.getplugin("case_table")
    if table.proofs:
        due = [case for case in table.cases if not case.later]
        terminalreporter.section("cases")
        proven = len(due) - len(table.unproven())
        terminalreporter.line(f"{proven} of {len(due)} numbered cases proven by this run")
    path = config.getoption("--case-table")
    if path:
        terminalreporter.line(f"without a test: {', '.join(table.unproven()) or 'none'}")
        Path(path).write_text(table.render(), encoding="utf-8")
