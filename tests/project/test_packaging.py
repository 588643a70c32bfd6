"""The wheel, and that pip installs nothing whose hash differs from the locked one."""

import hashlib
import re
import subprocess
import sys
import zipfile
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest

import authz_server
from support.lock_files import project
from support.source_tree import PACKAGES, ROOT, tracked_files


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def pip_install(requirement: str, target: Path) -> subprocess.CompletedProcess[str]:
    """Install one requirement line into `target`, by hash and without a network."""
    lines = target.with_suffix(".txt")
    lines.write_text(requirement + "\n", encoding="utf-8")
    return subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "install"),
            *("--no-index", "--no-deps", "--require-hashes", "--target", target, "-r", lines),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_top_level_of_the_wheel_is_the_three_packages(wheel):
    top = {name.partition("/")[0] for name in names_in(wheel)}
    assert top == {*PACKAGES, f"authz_server-{authz_server.__version__}.dist-info"}


def test_wheel_holds_every_file_of_the_packages_and_the_licence(wheel):
    tracked = {path.relative_to(ROOT) for path in tracked_files()}
    sources = {str(path) for path in tracked if path.parts[0] in PACKAGES}
    names = set(names_in(wheel))
    assert sources - names == set()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {f"{package}/py.typed" for package in PACKAGES} - names == set()


def test_version_is_written_once():
    assert project()["project"]["dynamic"] == ["version"]
    assert distribution("authz-server").version == authz_server.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (Unreleased|\d+\.\d+\.\d+)", changelog, re.MULTILINE)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_distribution_claims_our_names(package):
    assert set(packages_distributions().get(package, [])) <= {"authz-server"}


def test_every_entry_point_loads():
    ours = distribution("authz-server").entry_points
    declared = project()["project"]["entry-points"]
    assert {e.group for e in ours} == {"console_scripts", *declared}
    assert all(callable(e.load()) or hasattr(e.load(), "__file__") for e in ours)


def test_untouched_wheel_is_installed_by_its_hash(wheel, tmp_path):
    """Case L131"""
    run = pip_install(f"{wheel} --hash=sha256:{sha256(wheel)}", tmp_path / "target")
    assert run.returncode == 0, run.stderr
    assert {p.name for p in (tmp_path / "target").iterdir()} >= set(PACKAGES)


def test_changed_wheel_is_refused(wheel, tmp_path):
    """Case L131"""
    changed = tmp_path / wheel.name
    changed.write_bytes(wheel.read_bytes())
    with zipfile.ZipFile(changed, "a") as archive:
        archive.writestr("authz_server/added_by_somebody.py", "")
    run = pip_install(f"{changed} --hash=sha256:{sha256(wheel)}", tmp_path / "target")
    assert run.returncode != 0
    assert "DO NOT MATCH THE HASHES" in run.stderr
    assert not (tmp_path / "target").exists()


def test_package_without_a_hash_is_refused(wheel, tmp_path):
    """Case L131"""
    run = pip_install(str(wheel), tmp_path / "target")
    assert run.returncode != 0
    assert "Hashes are required" in run.stderr
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("file", ["Makefile", "Dockerfile", "tests/project/run_from_wheel"])
def test_everything_that_installs_from_an_index_requires_hashes(file):
    """Case L131"""
    text = (ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ")
    installs = [line for line in text.splitlines() if re.search(r"\binstall\b.*(--|-r )", line)]
    from_index = [line for line in installs if "--no-index" not in line]
    assert from_index
    assert all("--require-hashes" in line for line in from_index)
    # Apache's module exists as source alone. Without isolation, its build fetches nothing.
    compiled = [line for line in from_index if "requirements/apache.txt" in line]
    assert all("--no-build-isolation" in line for line in compiled)
    assert all("--only-binary :all:" in line for line in from_index if line not in compiled)
