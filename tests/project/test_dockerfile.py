"""The image, as far as it can be known without a container engine: its text, and its steps."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

import authz_server
from support.dockerfile import Carrier, read_dockerfile
from support.lock_files import locked
from support.ports import reserve_port
from support.source_tree import ROOT, tracked_files
from support.tied_process import end_process, start_tied

PATH = ROOT / "Dockerfile"
BUILD_TOOLS = re.compile(r"apt|apk|gcc|g\+\+|make|hatchling|build-essential|\bgit\b|curl|wget")


@pytest.fixture(scope="module")
def dockerfile():
    return read_dockerfile(PATH)


@pytest.fixture(scope="module")
def built(dockerfile, tmp_path_factory) -> Carrier:
    """The build stage carried out, from the same locks with the same commands."""
    carrier = Carrier(tmp_path_factory.mktemp("image"))
    carrier.carry_out(dockerfile.stages[0])
    return carrier


def environment_of(carrier: Carrier) -> dict[str, str]:
    """Return what the final stage sets, with the copied environment first on the path."""
    return {"PATH": f"{carrier.root}/opt/authz-server/bin:/usr/bin:/bin", "HOME": "/nonexistent"}


def inside_installed(
    carrier: Carrier, *command: str, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command as the final stage would."""
    return subprocess.run(
        command,
        cwd=folder or carrier.root,
        env=environment_of(carrier),
        capture_output=True,
        text=True,
        check=False,
    )


def test_hadolint_has_nothing_to_say():
    """Case L134"""
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    run = subprocess.run([hadolint, PATH], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "")


def test_image_has_two_stages_on_one_base_that_can_be_named_by_digest(dockerfile):
    """Case L134"""
    assert [stage.name for stage in dockerfile.stages] == ["build", ""]
    assert {stage.base for stage in dockerfile.stages} == {"${PYTHON_IMAGE}"}
    assert re.fullmatch(r"python:3\.\d+-slim", dockerfile.arguments["PYTHON_IMAGE"])


def test_final_stage_runs_as_a_user_without_a_name_in_the_base(dockerfile):
    """Case L134"""
    final = dockerfile.stages[-1]
    user, _, group = final.last("USER").partition(":")
    assert int(user) >= 10_000
    assert int(group) >= 10_000
    after = final.instructions[[i.keyword for i in final.instructions].index("USER") :]
    assert not any(i.keyword in {"RUN", "COPY", "ADD"} for i in after)


def test_final_stage_has_a_health_check_and_the_entry_point(dockerfile):
    """Case L134"""
    final = dockerfile.stages[-1]
    assert "CMD [" in final.last("HEALTHCHECK")
    assert json.loads(final.last("ENTRYPOINT")) == ["authz-server"]
    assert json.loads(final.last("CMD"))[0] == "serve"


def test_final_stage_brings_in_no_build_tools(dockerfile):
    """Case L134"""
    final = dockerfile.stages[-1]
    assert not any(BUILD_TOOLS.search(command) for command in final.all("RUN"))
    assert final.all("COPY") == ["--from=build /opt/authz-server /opt/authz-server"]
    assert final.all("ADD") == []


def test_no_secret_can_enter_a_layer(dockerfile):
    """Case L134"""
    told = [rest for stage in dockerfile.stages for rest in stage.all("ENV") + stage.all("ARG")]
    assert not any(re.search(r"secret|password|token|key", rest, re.IGNORECASE) for rest in told)
    copied = {
        source
        for stage in dockerfile.stages
        for rest in stage.all("COPY")
        if not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert ignore[0] == "*"
    assert {line[1:] for line in ignore if line.startswith("!")} == copied
    tracked = {str(path.relative_to(ROOT)) for path in tracked_files()}
    assert all(any(t == c or t.startswith(f"{c}/") for t in tracked) for c in copied)


def require_what_is_locked(carrier: Carrier) -> None:
    listing = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({d.name: d.version for d in m.distributions()}))"
    )
    run = inside_installed(carrier, "python", "-c", listing)
    found = {canonicalize_name(name): version for name, version in json.loads(run.stdout).items()}
    assert found.pop("authz-server") == authz_server.__version__
    assert found == {
        pin.name: pin.version for pin in locked("backends").values() if pin.applies_here()
    }


def wait_until_healthy(carrier: Carrier, check: list[str], folder: Path) -> str:
    """Run the health check as a container engine does; return its last complaint, if any."""
    for _ in range(100):
        run = inside_installed(carrier, *check, folder=folder)
        if run.returncode == 0:
            return ""
        time.sleep(0.2)
    return run.stderr


@pytest.mark.timeout(600)
def test_build_stage_installs_what_is_locked_and_the_entry_point_serves(
    built, dockerfile, tmp_path
):
    """Case L131, L134"""
    require_what_is_locked(built)
    final = dockerfile.stages[-1]
    entry, serve = (json.loads(final.last(keyword)) for keyword in ("ENTRYPOINT", "CMD"))
    assert (built.root / "opt/authz-server/bin" / entry[0]).exists()
    assert (built.root / "opt/authz-server/share/doc/authz-server/docs/operations.md").exists()
    port, health_port = reserve_port(), reserve_port()
    made = inside_installed(
        *(built, *entry, "init", "--issuer", "https://auth.example.org"),
        *("--port", str(port), "--health-port", str(health_port)),
        folder=tmp_path,
    )
    assert made.returncode == 0, made.stderr
    check = json.loads(final.last("HEALTHCHECK").partition("CMD ")[2])
    assert "127.0.0.1:8081/" in check[-1]
    check[-1] = check[-1].replace(":8081/", f":{health_port}/")
    assert inside_installed(built, *check).returncode != 0
    with (tmp_path / "output").open("wb") as output:
        server = start_tied(
            [*entry, *serve], output=output, environment=environment_of(built), directory=tmp_path
        )
        complaint = wait_until_healthy(built, check, tmp_path)
        status = end_process(server)
    assert (complaint, status) == ("", 0), (tmp_path / "output").read_text(encoding="utf-8")
