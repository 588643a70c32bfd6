"""The files of `make dist`; pip installs nothing whose hash differs from the locked one."""

import hashlib
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest

import authz_server
from support.built_dist import build_dist, dist
from support.lock_files import project
from support.source_tree import PACKAGES, ROOT, texts, tracked_files

__all__ = ["dist"]

VERSION = authz_server.__version__
#: Where pip puts the documents, below the folder of the environment.
DOCUMENTS = "share/doc/authz-server/"
DOCUMENTED = {
    *("CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md", "config.example.toml"),
    *("requirements/run.txt", "requirements/backends.txt"),
}
FROM_AN_INDEX = re.compile(r"authz-server\[|install ['\"]?authz[-_]server(?![-_*])")


@pytest.fixture(scope="module")
def wheel(dist) -> Path:
    (built,) = dist.glob("*.whl")
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


def contents_below(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_dist_is_what_an_installation_needs_with_the_sum_of_each_file(dist):
    """Case L131"""
    built = {
        f"authz_server-{VERSION}-py3-none-any.whl",
        f"authz_server-{VERSION}.tar.gz",
        f"authz-server-{VERSION}-requirements.txt",
        f"authz-server-{VERSION}-requirements-backends.txt",
    }
    files = contents_below(dist)
    sums = dict(line.split("  ")[::-1] for line in files.pop("SHA256SUMS").decode().splitlines())
    assert set(files) == built
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    for ending, lock in (("", "run"), ("-backends", "backends")):
        locked = files[f"authz-server-{VERSION}-requirements{ending}.txt"]
        assert locked == (ROOT / "requirements" / f"{lock}.txt").read_bytes()


def test_two_builds_are_the_same_byte_for_byte(dist, tmp_path):
    """Case L131"""
    run = build_dist(tmp_path / "dist", TZ="Pacific/Auckland", LANG="tr_TR.UTF-8")
    assert run.returncode == 0, run.stderr
    assert contents_below(tmp_path / "dist") == contents_below(dist)
    assert contents_below(tmp_path / "dist/verifier") == contents_below(dist / "verifier")


def test_files_are_dated_by_the_last_commit(dist, wheel):
    """Case L131"""
    last = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (sources,) = dist.glob("*.tar.gz")
    with tarfile.open(sources) as archive:
        assert {member.mtime for member in archive} == {int(last.stdout)}
    with zipfile.ZipFile(wheel) as archive:
        assert len({info.date_time for info in archive.infolist()}) == 1


def test_top_level_of_the_wheel_is_the_three_packages_beside_its_metadata_and_documents(wheel):
    top = {name.partition("/")[0] for name in names_in(wheel)}
    own = f"authz_server-{VERSION}"
    assert top == {*PACKAGES, f"{own}.dist-info", f"{own}.data"}


def test_wheel_brings_the_documents_and_the_example_settings(wheel):
    tracked = {str(path.relative_to(ROOT)): path for path in tracked_files()}
    wanted = {n for n in tracked if n in DOCUMENTED or n.startswith(("docs/", "deploy/"))}
    assert wanted > DOCUMENTED
    prefix = f"authz_server-{VERSION}.data/data/{DOCUMENTS}"
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(prefix)]
        shipped = {name.removeprefix(prefix): archive.read(name) for name in names}
    assert shipped == {name: tracked[name].read_bytes() for name in wanted}


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
    assert (tmp_path / "target" / DOCUMENTS / "docs" / "operations.md").is_file()


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


def test_nothing_names_a_package_of_ours_in_an_index():
    """The public index has none: somebody else could publish one under the name."""
    ours = {Path("README.md"), Path("CHANGELOG.md")}
    found = {
        f"{path}: {match.group()}"
        for path, text in texts()
        if path in ours or path.parts[0] in {*PACKAGES, "deploy", "docs"}
        for match in FROM_AN_INDEX.finditer(text)
    }
    assert found == set()
