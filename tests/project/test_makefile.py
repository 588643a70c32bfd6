"""The Makefile where nothing is installed yet."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.source_tree import ROOT

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder with the Makefile alone, and an empty `bin` that comes first on the path."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "bin").mkdir()
    return tmp_path


def install_command(checkout: Path, name: str, script: str) -> None:
    command = checkout / "bin" / name
    command.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    command.chmod(0o755)


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments],
        cwd=checkout,
        env={"PATH": f"{checkout}/bin{os.pathsep}{os.environ['PATH']}", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_older_python_is_refused_with_the_remedy(checkout):
    install_command(checkout, "python3", '[ "$1" = --version ] && echo Python 3.10.13 || exit 1')
    run = make(checkout, "demo")
    assert run.returncode != 0
    assert "Python 3.10.13 is too old: Python 3.11 or newer is needed" in run.stderr
    assert not (checkout / ".venv").exists()


def test_missing_python_is_named(checkout):
    run = make(checkout, "test", "PYTHON=python-that-is-nowhere")
    assert run.returncode != 0
    assert "python-that-is-nowhere was not found" in run.stderr


def test_bare_make_lists_the_targets(checkout):
    run = make(checkout)
    assert run.returncode == 0
    for target in ("demo", "test", "lint", "dist", "wheel", "lock", "clean"):
        assert f"{target} " in run.stdout


def test_image_is_built_on_a_base_named_by_digest(checkout):
    """Case L134"""
    install_command(
        checkout, "docker", f'[ "$1" = buildx ] && echo {DIGEST} || echo "$@" >built-with'
    )
    run = make(checkout, "image")
    assert run.returncode == 0, run.stderr
    words = (checkout / "built-with").read_text(encoding="utf-8").split()
    assert f"PYTHON_IMAGE=python:3.13-slim@{DIGEST}" in words
    assert f"org.opencontainers.image.base.digest={DIGEST}" in words


def test_image_is_not_built_without_a_digest(checkout):
    """Case L134"""
    install_command(checkout, "docker", '[ "$1" = buildx ] && echo latest || touch built')
    run = make(checkout, "image")
    assert run.returncode != 0
    assert "no digest for python:3.13-slim" in run.stderr
    assert not (checkout / "built").exists()
