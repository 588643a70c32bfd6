"""Without the libraries of optional backends all else works, and says what is missing."""

import subprocess
import sys

from support.settings_file import write_settings

#: What the extras bring, and what the tests alone bring; neither is there in a plain installation.
WITHOUT = """
import sys
for name in {names!r}:
    sys.modules[name] = None
from authz_server.__main__ import main
sys.argv = ["authz-server", *sys.argv[1:]]
main()
"""
OPTIONAL = (
    *("hvac", "pkcs11", "redis"),
    *("requests", "urllib3", "pytest", "hypothesis", "httpx", "yaml"),
)


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.format(names=OPTIONAL), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )


def test_a_plain_installation_needs_no_library_of_an_extra(tmp_path):
    for arguments in (
        ("init", "--development"),
        ("config", "check"),
        ("keys", "rotate", "--dry-run"),
        ("keys", "status"),
        ("keys", "doctor"),
        ("keys", "drill", "rs256"),
        ("keys", "tick"),
    ):
        done = run(*arguments, cwd=tmp_path)
        assert done.returncode in (0, 1), done.stderr
        assert "Traceback" not in done.stderr, done.stderr


def test_missing_redis_is_an_error_at_the_start_that_names_the_lock_file(tmp_path):
    (tmp_path / "redis-url").write_text("redis://127.0.0.1:1/0")
    (tmp_path / "redis-url").chmod(0o600)
    clients = {"throttle": "redis", "redis_url": {"file": "redis-url"}}
    config = write_settings(tmp_path, f"sqlite:///{tmp_path}/a.db", {"clients": clients})
    done = run("config", "check", "--config", config, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "clients.throttle" in done.stderr
    assert "requirements/backends" in done.stderr


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
    assert run("db", "upgrade", "--config", config, cwd=tmp_path).returncode == 0
    for arguments in (("config", "check"), ("serve",)):
        done = run(*arguments, "--config", config, cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        assert "requirements/backends" in done.stderr
        assert "Traceback" not in done.stderr
