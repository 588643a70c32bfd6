import re
import socket

from authz_server.cli.demo import site
from support.live_server import run_cli


def test_a_second_demonstration_in_the_same_directory_is_refused(tmp_path):
    import fcntl  # noqa: PLC0415 - POSIX

    (tmp_path / "demo").mkdir()
    with (tmp_path / "demo" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        run = run_cli("demo", "--once", "--directory", str(tmp_path / "demo"))
    assert run.returncode == 1
    assert "stop process 4711 first" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_port_that_is_taken_is_replaced_and_named(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        monkeypatch.setattr(site, "_PREFERRED_PORTS", (taken,) * 4)
        emitted = []
        ports = site.find_ports(emitted.append)
    assert taken not in ports
    named = [
        re.match(r"Port (\d+) is taken: this run uses (\d+) instead", each) for each in emitted
    ]
    assert [(int(each[1]), int(each[2])) for each in named] == [(taken, port) for port in ports]
