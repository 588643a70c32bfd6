"""Without the libraries of optional backends all else works, and says what is missing."""

import json
import subprocess
import sys

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


def test_a_plain_installation_needs_no_library_of_an_extra(tmp_path):
    ended = run(
        ("init", "--development"),
        ("config", "check"),
        ("keys", "rotate", "--dry-run"),
        ("keys", "status"),
        ("keys", "doctor"),
        ("keys", "drill", "rs256"),
        ("keys", "tick"),
        cwd=tmp_path,
    )
    assert ended[0][0] == 0, ended[0]
    for status, stderr in ended:
        assert status in (0, 1), stderr


def test_missing_redis_is_an_error_at_the_start_that_names_the_lock_file(tmp_path):
    (tmp_path / "redis-url").write_text("redis://127.0.0.1:1/0")
    (tmp_path / "redis-url").chmod(0o600)
    clients = {"throttle": "redis", "redis_url": {"file": "redis-url"}}
    config = write_settings(tmp_path, f"sqlite:///{tmp_path}/a.db", {"clients": clients})
    ((status, stderr),) = run(("config", "check", "--config", config), cwd=tmp_path)
    assert status == 1, stderr
    assert "clients.throttle" in stderr
    assert "requirements/backends" in stderr


def test_a_missing_library_is_an_error_at_the_start_that_names_the_lock_file(tmp_path):
    uri = "pkcs11:token=t;object=o?module-path=/m.so&pin-source=file:/p"
    login = {"method": "token", "token_file": "token"}
    (tmp_path / "token").write_text("t")
    (tmp_path / "token").chmod(0o600)
    keys = {
        "rings": {"es256": {"algorithm": "ES256", "backend": uri}},
        "vaults": {"main": {"addresses": ["http://127.0.0.1:1"], "login": login}},
    }
    config = write_settings(tmp_path, f"sqlite:///{tmp_path}/a.db", {"keys": keys})
    migrated, *refused = run(
        *(
            (*arguments, "--config", config)
            for arguments in (("db", "upgrade"), ("config", "check"), ("serve",))
        ),
        cwd=tmp_path,
    )
    assert migrated[0] == 0, migrated
    for status, stderr in refused:
        assert status == 1, stderr
        assert "requirements/backends" in stderr
