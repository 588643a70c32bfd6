"""The promtool of Prometheus: checks rules, their behaviour over time, and a page of metrics."""

import os
import shutil
import subprocess
from pathlib import Path

from support.not_run import skip_as_not_run

_SECONDS = 120


def run_promtool(*arguments: str | Path, page: bytes | None = None) -> str:
    """Return what promtool printed; fail if it found a fault.

    Args:
        arguments: the command and its arguments.
        page: its standard input.
    """
    program = shutil.which("promtool")
    if program is None:
        skip_as_not_run("the alert rules in promtool", "prometheus")
    run = subprocess.run(
        [program, *arguments],
        input=page,
        capture_output=True,
        timeout=_SECONDS,
        check=False,
        # Collecting its garbage takes a sixth of its time.
        env=os.environ | {"GOGC": "off", "GOMEMLIMIT": "1GiB"},
    )
    printed = (run.stdout + run.stderr).decode()
    assert run.returncode == 0, printed
    return printed
