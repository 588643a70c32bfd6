"""The distribution authz-verifier: built, installed without the server, used as in its README."""

import hashlib
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from support.built_dist import dist
from support.source_tree import ROOT, imports_of, python_files

__all__ = ["dist"]

SOURCES = ROOT / "verifier"
#: Blocks the server's packages, so that nothing of the checkout can help.
ALONE = "import sys\nfor name in ('authz_server', 'keys', 'plugins'): sys.modules[name] = None\n"


@pytest.fixture(scope="module")
def wheel(dist) -> Path:
    (built,) = (dist / "verifier").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the installed wheel and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    lines = target.parent / "wheel.txt"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lines.write_text(f"{wheel} --hash=sha256:{digest}\n")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"),
            *("--no-index", "--no-deps", "--require-hashes", "--target", target, "-r", lines),
        ],
        check=True,
        capture_output=True,
    )
    return target


def run(installed: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )


def examples() -> list[str]:
    readme = (SOURCES / "README.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", readme, re.DOTALL)


def test_the_wheel_holds_the_package_and_its_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    files = {
        str(path.relative_to(SOURCES / "src"))
        for path in python_files("verifier")
        if (SOURCES / "src") in path.parents
    }
    assert files - names == set()
    assert "authz_verifier/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"authz_verifier"}


def test_it_declares_what_it_imports():
    """The frameworks of its skins are those of the application."""
    project = tomllib.loads((SOURCES / "pyproject.toml").read_text())["project"]
    declared = {re.match(r"[\w-]+", each)[0] for each in project["dependencies"]}
    sources = [path for path in python_files("verifier") if (SOURCES / "src") in path.parents]
    imported = {name.partition(".")[0] for path in sources for name in imports_of(path)}
    of_skins = {"asgiref", "django", "flask", "pytest", "starlette"}
    assert imported - of_skins - sys.stdlib_module_names - {"authz_verifier"} == declared
    assert declared == {"cryptography", "httpcore", "httpx"}


def test_it_works_without_the_server(installed, tmp_path):
    code = f"{ALONE}import authz_verifier\nprint(authz_verifier.__file__)"
    done = run(installed, "-c", code, folder=tmp_path)
    assert done.stdout.startswith(str(installed)), done.stderr
    done = run(installed, "-m", "authz_verifier.cli", "probe", "--help", folder=tmp_path)
    assert "exit status" in done.stdout


def test_the_first_example_and_its_test_run_with_the_installed_plugin(installed, tmp_path):
    """The lines of the README in an application factory, tested by the README's test."""
    application, *_, test = examples()
    lines = application.replace('"https://auth.example.org"', "issuer")
    lines = lines.replace('"https://mapper.example.org"', "audience")
    body = "".join(f"    {line}\n" if line else "\n" for line in lines.splitlines())
    source = f"{ALONE}\ndef create_app(issuer, audience):\n{body}    return app\n\n\n{test}"
    refused = test.replace("test_link", "test_refused").replace(
        'authorization("mapper/link")', 'authorization("other")'
    )
    source += "\n\n" + refused.replace("== 200", "== 403")
    (tmp_path / "test_api.py").write_text(source)
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "error")
    done = run(installed, "-m", "pytest", *options, "test_api.py", folder=tmp_path)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_servers_documents_show_the_first_example():
    for document in ("README.md", "docs/connecting.md"):
        assert f"```python\n{examples()[0]}```" in (ROOT / document).read_text(encoding="utf-8")


def test_the_settings_of_the_readme_are_those_of_the_code():
    from authz_verifier.core import Settings  # noqa: PLC0415 - of the checkout, for this test

    readme = (SOURCES / "README.md").read_text(encoding="utf-8")
    table = readme.partition("## Settings")[2].partition("\n\nA decision")[0]
    documented = set(
        re.findall(
            r"`(\w+)`",
            " ".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `")),
        )
    )
    fields = set(Settings.__dataclass_fields__) - {"issuer", "audience", "clock"}
    assert documented == fields | {"ssl_context"}
