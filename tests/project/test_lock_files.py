"""The lock files: complete, hashed, free of addresses, in step with pyproject.toml."""

import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, files, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.lock_files import HASH, LOCKS, direct, lock_text, locked
from support.source_tree import PACKAGES, ROOT, imports_of, python_files

OURS = {*PACKAGES, "authz_verifier", "support", "bench", "rotation_demo"}
# The contract suite for key backends is there for tests alone, those of strangers among them.
FOR_TESTS = ROOT / "keys" / "testing.py"
SOURCES = [path for path in python_files(*PACKAGES) if path != FOR_TESTS]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_one_version_and_its_hashes(lock):
    """Case L131"""
    for pin in locked(lock).values():
        assert pin.version, pin
        assert pin.hashes, pin
        assert all(HASH.fullmatch(digest) for digest in pin.hashes), pin


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_file_holds_names_versions_and_hashes_only(lock):
    """Case L131"""
    line = re.compile(
        r"    --hash=sha256:[0-9a-f]{64}( \\)?|[a-z0-9.-]+(\[[a-z,]+\])?==[^ /]+( ; [^/]+)? \\"
    )
    strange = [text for text in lock_text(lock).splitlines() if not line.fullmatch(text)]
    assert strange == []


@pytest.mark.parametrize("lock", LOCKS)
def test_every_direct_dependency_is_locked_at_or_above_its_floor(lock):
    """Case L131"""
    pins = locked(lock)
    for name, requirement in direct(lock).items():
        assert requirement.specifier.contains(pins[name].version), requirement


def test_lock_files_agree_with_one_another():
    """Case L131"""
    versions: dict[str, set[str]] = {}
    for lock in LOCKS:
        for pin in locked(lock).values():
            versions.setdefault(pin.name, set()).add(pin.version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def needed_by(requirement: Requirement) -> list[Requirement]:
    """Return what an installed distribution needs here, for the extras that are asked for."""
    try:
        written = requires(requirement.name) or []
    except PackageNotFoundError:
        return []
    environments = [default_environment() | {"extra": e} for e in (requirement.extras or {""})]
    needs = map(Requirement, written)
    return [n for n in needs if n.marker is None or any(map(n.marker.evaluate, environments))]


@pytest.mark.parametrize("lock", ["run", "backends"])
def test_lock_covers_everything_that_is_needed_in_turn(lock):
    """Case L131"""
    waiting, seen = list(direct(lock).values()), set()
    while waiting:
        requirement = waiting.pop()
        seen.add(canonicalize_name(requirement.name))
        waiting += [n for n in needed_by(requirement) if canonicalize_name(n.name) not in seen]
    assert len(seen) > len(direct(lock))
    assert seen - set(locked(lock)) == set()


def imported_distributions(paths: Iterable[Path]) -> dict[str, str]:
    """Return the distributions that some files import, each with one importing file."""
    found = {}
    for path in paths:
        for module in imports_of(path):
            name = module.partition(".")[0]
            if name not in OURS and name not in sys.stdlib_module_names:
                distributions = set(providers().get(name, [name]))
                if len(distributions) > 1:
                    distributions = {each for each in distributions if holds(each, module)}
                for each in distributions:
                    found[canonicalize_name(each)] = f"{path.name} imports {module}"
    return found


@cache
def providers() -> Mapping[str, list[str]]:
    """Return the installed distributions of each top-level module."""
    return packages_distributions()


@cache
def files_of(distribution: str) -> frozenset[str]:
    """Return the paths of an installed distribution's files."""
    return frozenset(map(str, files(distribution) or ()))


def holds(distribution: str, module: str) -> bool:
    """Return whether a distribution has a module of a namespace that others share."""
    start = module.replace(".", "/")
    return not files_of(distribution).isdisjoint({f"{start}.py", f"{start}/__init__.py"})


def test_packages_import_only_what_they_declare():
    imported = imported_distributions(SOURCES)
    assert {d: who for d, who in imported.items() if d not in direct("backends")} == {}


def test_tests_import_only_what_they_declare():
    declared = direct("backends") | direct("test")
    imported = imported_distributions([*python_files("tests"), FOR_TESTS])
    assert {d: who for d, who in imported.items() if d not in declared} == {}


def test_every_declared_dependency_is_used():
    """SQLAlchemy loads psycopg by URL; Werkzeug's and joserfc's floors guard what others bring."""
    imported = imported_distributions(SOURCES)
    unused = set(direct("backends")) - set(imported)
    assert unused <= {"psycopg", "werkzeug", "joserfc"}
