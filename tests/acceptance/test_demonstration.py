"""The demonstration that `make demo` shows, and its commands repeated in a shell."""

import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from authz_server.cli.demo.chromium import find_chromium
from authz_server.cli.demo.console_walk import SCREENS
from support.not_run import skip_as_not_run

_DEMO = (sys.executable, "-m", "authz_server", "demo")


@pytest.mark.timeout(180)
def test_the_demonstration_does_what_each_step_says_and_ends(tmp_path):
    """Case F67. Case E59."""
    run = subprocess.run(
        [*_DEMO, "--once", "--directory", tmp_path / "demo"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert len(re.findall(r"^   As expected: ", run.stdout, re.MULTILINE)) == 11
    assert "Every step had its expected result." in run.stdout
    assert "HTTP/1.1 200 OK\n" in run.stdout
    assert '"client_id": "demo-disbursement"' in run.stdout.partition("Its claims")[2]
    if find_chromium() is None:
        assert "`apt install chromium` brings it." in run.stdout
    else:
        pictures = sorted((tmp_path / "demo" / "console").iterdir())
        assert len(pictures) == len(SCREENS)
        assert all(each.read_bytes().startswith(b"\x89PNG") for each in pictures)


@pytest.mark.timeout(180)
def test_it_goes_on_serving_and_its_commands_can_be_repeated(tmp_path):
    bash = shutil.which("curl")
    if bash is None:
        skip_as_not_run("the demonstration's commands in a shell", "curl")
    process = subprocess.Popen(
        [*_DEMO, "--directory", tmp_path / "demo"], stdout=subprocess.PIPE, text=True
    )
    try:
        told = _read_until(process, "Ctrl-C ends both")
        commands = re.findall(r"^\$ (curl .+?)\n\n", told, re.MULTILINE | re.DOTALL)
        answers = [_run_in_shell(command) for command in commands]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        process.stdout.close()
    assert re.search(r"http://localhost:\d+/enrol/\S+", told.partition("The console")[2])
    # Only what was revoked in between is answered differently.
    assert [answer.split()[1] for answer in answers] == [
        *("200", "200", "401", "401", "200", "403"),
        *("200", "200", "200", "200", "401"),
    ]
    assert '"active":false' in answers[6].replace(" ", "")


def _read_until(process, text):
    told, deadline = "", time.monotonic() + 120
    while text not in told and time.monotonic() < deadline:
        line = process.stdout.readline()
        assert line, told
        told += line
    return told


def _run_in_shell(command):
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    return run.stdout
