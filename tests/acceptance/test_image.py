"""The steps of the image's build stage, carried out without a container engine."""

import json
import subprocess
import time
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

import authz_server
from support.dockerfile import DOCKERFILE, Carrier, read_dockerfile
from support.lock_files import locked
from support.ports import reserve_port
from support.tied_process import end_process, start_tied


@pytest.fixture(scope="module")
def dockerfile():
    return read_dockerfile(DOCKERFILE)


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
