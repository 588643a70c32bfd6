"""The demonstration of key rotation, in its short variant: what it shows is true and adds up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.source_tree import ROOT
from support.tied_process import is_running

LIBRARIES = {"PyJWT", "joserfc", "jwcrypto"}
VERIFIERS = LIBRARIES | {"introspection"}
NODES = {"node 1", "node 2", "node 3"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("rotation")


@pytest.fixture(scope="module")
def run(directory) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rotation_demo", "--quick"]
    return subprocess.run(
        [*command, "--report", directory / "report.json", "--calendar", directory / "ring.svg"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.fixture(scope="module")
def report(run, directory):
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads((directory / "report.json").read_text())


@pytest.mark.timeout(600)
def test_no_good_token_is_refused(report):
    """Case G75, Case G76"""
    kept = report["with_prepublication"]
    assert (kept["refused"], kept["failed_requests"], report["failures"]) == (0, [], [])
    assert len(kept["rotations"]) >= 4
    for rotation in kept["rotations"]:
        assert rotation["tokens"].keys() == NODES
        assert rotation["verified"].keys() == VERIFIERS
        assert rotation["refused_wrongly"] == 0
        tokens = sum(rotation["tokens"].values())
        assert all(rotation["verified"][verifier] >= tokens for verifier in VERIFIERS)


@pytest.mark.timeout(600)
def test_a_withdrawn_key_is_gone_in_time(report):
    """Case G83"""
    kept, clock = report["with_prepublication"], report["clock"]
    withdrawal = kept["withdrawal"]
    followed = ("standby_signs", "introspection_refuses", "jwks_without_key")
    assert all(withdrawal[name].keys() == NODES for name in followed)
    assert withdrawal["accepted_until"].keys() == LIBRARIES
    bound = clock["refresh_seconds"] + clock["jwks_maximum_age_seconds"]
    assert max(withdrawal["accepted_until"].values()) <= bound + 0.5
    assert withdrawal["fenced"]
    withdrawn = [each for each in kept["rotations"] if each["kid"] == withdrawal["kid"]]
    assert [each["refused_apart"] for each in withdrawn] == [kept["refused_apart"]]
    assert kept["refused_apart"] > 0


@pytest.mark.timeout(600)
def test_every_signature_is_accounted_for_and_a_forgery_found(report):
    kept = report["with_prepublication"]
    found = kept["reconciled"]
    assert found["signatures"] >= found["recorded"] >= kept["tokens"]
    assert (found["unaccounted"], found["unaccounted_after_forgery"]) == (0, 1)


@pytest.mark.timeout(600)
def test_without_pre_publication_the_same_traffic_is_refused(report):
    bare = report["without_prepublication"]
    assert bare["refused"] > 0
    assert bare["withdrawal"] is None


@pytest.mark.timeout(600)
def test_the_calendar_is_drawn_and_nothing_is_left(run, report, directory):
    assert "signs" in run.stdout
    assert "revoked" in run.stdout
    assert (directory / "ring.svg").read_text().startswith("<svg")
    assert not [path for path in report["directories"] if Path(path).exists()]
    assert not [each for each in report["processes"] if is_running(each)]
    assert len(report["processes"]) == 16
