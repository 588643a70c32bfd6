"""The image, as far as its text says it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.dockerfile import DOCKERFILE, read_dockerfile
from support.source_tree import ROOT, tracked_files

BUILD_TOOLS = re.compile(r"apt|apk|gcc|g\+\+|make|hatchling|build-essential|\bgit\b|curl|wget")


@pytest.fixture(scope="module")
def dockerfile():
    return read_dockerfile(DOCKERFILE)


def test_hadolint_has_nothing_to_say():
    """Case L134"""
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    run = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "")


def test_image_has_two_stages_on_one_base_that_can_be_named_by_digest(dockerfile):
    """Case L134"""
    assert [stage.name for stage in dockerfile.stages] == ["build", ""]
    assert {stage.base for stage in dockerfile.stages} == {"${PYTHON_IMAGE}"}
    assert re.fullmatch(r"python:3\.\d+-slim", dockerfile.arguments["PYTHON_IMAGE"])


def test_final_stage_runs_as_a_user_without_a_name_in_the_base(dockerfile):
    """Case L134"""
    final = dockerfile.stages[-1]
    user, _, group = final.last("USER").partition(":")
    assert int(user) >= 10_000
    assert int(group) >= 10_000
    after = final.instructions[[i.keyword for i in final.instructions].index("USER") :]
    assert not any(i.keyword in {"RUN", "COPY", "ADD"} for i in after)


def test_final_stage_has_a_health_check_and_the_entry_point(dockerfile):
    """Case L134"""
    final = dockerfile.stages[-1]
    assert "CMD [" in final.last("HEALTHCHECK")
    assert json.loads(final.last("ENTRYPOINT")) == ["authz-server"]
    assert json.loads(final.last("CMD"))[0] == "serve"


def test_final_stage_brings_in_no_build_tools(dockerfile):
    """Case L134"""
    final = dockerfile.stages[-1]
    assert not any(BUILD_TOOLS.search(command) for command in final.all("RUN"))
    assert final.all("COPY") == ["--from=build /opt/authz-server /opt/authz-server"]
    assert final.all("ADD") == []


def test_no_secret_can_enter_a_layer(dockerfile):
    """Case L134"""
    told = [rest for stage in dockerfile.stages for rest in stage.all("ENV") + stage.all("ARG")]
    assert not any(re.search(r"secret|password|token|key", rest, re.IGNORECASE) for rest in told)
    copied = {
        source
        for stage in dockerfile.stages
        for rest in stage.all("COPY")
        if not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert ignore[0] == "*"
    assert {line[1:] for line in ignore if line.startswith("!")} == copied
    tracked = {str(path.relative_to(ROOT)) for path in tracked_files()}
    assert all(any(t == c or t.startswith(f"{c}/") for t in tracked) for c in copied)
