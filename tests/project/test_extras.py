"""Without the libraries of optional backends all else works, and says what is missing."""

import json
import subprocess
import sys

import pytest

from support.settings_file import write_settings

#: What the extras bring, and what the tests alone bring; neither is there in a plain installation.
WITHOUT = """
import json, sys
for name in {names!r}:
    sys.modules[name] = None
from click.testing import CliRunner
from authz_server.__main__ import main
for arguments in json.loads(sys.argv[1]):
    done = CliRunner().invoke(main, arguments)
    fault = done.exception if not isinstance(done.exception, SystemExit) else None
    print(json.dumps([done.exit_code, done.stderr, repr(fault) if fault else ""]))
"""
OPTIONAL = (
    *("hvac", "pkcs11", "redis"),
    *("requests", "urllib3", "pytest", "hypothesis", "httpx", "yaml"),
)


#: What a plain installation does in an empty folder.
PLAIN = (
    ("init", "--development"),
    ("config", "check"),
    ("keys", "rotate", "--dry-run"),
    ("keys", "status"),
    ("keys", "doctor"),
    ("keys", "drill", "rs256"),
    ("keys", "tick"),
)


def run(*commands, cwd):
    """Run commands one after another in a process without the libraries.

    Returns the exit status of each with what it wrote to stderr. None of them raises.
    """
    commands = [list(map(str, arguments)) for arguments in commands]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(names=OPTIONAL), json.dumps(commands)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    ended = [json.loads(line) for line in done.stdout.splitlines()]
    assert [fault for *_, fault in ended if fault] == []
    assert len(ended) == len(commands)
    return [(status, stderr) for status, stderr, _ in ended]


def write_private(folder, name, text):
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)


def write_redis_settings(folder):
    """Write settings with counts in Redis; return their path."""
    write_private(folder, "redis-url", "redis://127.0.0.1:1/0")
    clients = {"throttle": "redis", "redis_url": {"file": "redis-url"}}
    return write_settings(folder, f"sqlite:///{folder}/a.db", {"clients": clients})


def write_token_settings(folder):
    """Write settings with keys on a PKCS#11 token and a Vault; return their path."""
    uri = "pkcs11:token=t;object=o?module-path=/m.so&pin-source=file:/p"
    login = {"method": "token", "token_file": "token"}
    write_private(folder, "token", "t")
    keys = {
        "rings": {"es256": {"algorithm": "ES256", "backend": uri}},
        "vaults": {"main": {"addresses": ["http://127.0.0.1:1"], "login": login}},
    }
    return write_settings(folder, f"sqlite:///{folder}/a.db", {"keys": keys})


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """How each command ended, in one process for all: importing the program takes long."""
    plain, redis, token = (tmp_path_factory.mktemp(name) for name in ("plain", "redis", "token"))
    by_redis, by_token = write_redis_settings(redis), write_token_settings(token)
    commands = {
        "plain": PLAIN,
        "redis": [("config", "check", "--config", by_redis)],
        "token": [
            (*arguments, "--config", by_token)
            for arguments in (("db", "upgrade"), ("config", "check"), ("serve",))
        ],
    }
    found = iter(run(*(each for group in commands.values() for each in group), cwd=plain))
    return {name: [next(found) for _ in group] for name, group in commands.items()}


def test_a_plain_installation_needs_no_library_of_an_extra(ended):
    assert ended["plain"][0][0] == 0, ended["plain"][0]
    for status, stderr in ended["plain"]:
        assert status in (0, 1), stderr


def test_missing_redis_is_an_error_at_the_start_that_names_the_lock_file(ended):
    ((status, stderr),) = ended["redis"]
    assert status == 1, stderr
    assert "clients.throttle" in stderr
    assert "requirements/backends" in stderr


def test_a_missing_library_is_an_error_at_the_start_that_names_the_lock_file(ended):
    migrated, *refused = ended["token"]
    assert migrated[0] == 0, migrated
    for status, stderr in refused:
        assert status == 1, stderr
        assert "requirements/backends" in stderr
