"""The commands of docs/grants.md, run as printed after those that start the README's server."""

import os
import shutil

import pytest

from support.documents import json_values, run_blocks, shell_blocks, with_values
from support.not_run import skip_as_not_run
from support.ports import release_port, reserve_port


@pytest.fixture
def ports():
    reserved = [reserve_port() for _ in range(2)]
    yield reserved
    for port in reserved:
        release_port(port)


@pytest.mark.timeout(120)
def test_the_commands_of_the_document(ports, tmp_path):
    for program in ("bash", "curl"):
        if shutil.which(program) is None:
            skip_as_not_run("the commands of the grants", program)
    first, make, serve = shell_blocks("README.md", dialect="sqlite")[:3]
    blocks = [
        with_values(first, {"PORT": ports[0], "HEALTH_PORT": ports[1]}),
        make,
        serve,
        *shell_blocks("docs/grants.md", dialect="sqlite"),
    ]
    printed = run_blocks(blocks, tmp_path, dict(os.environ), 110)
    told = dict(zip(blocks, printed, strict=True))

    def answers(piece):
        (found,) = [text for block, text in told.items() if piece in block]
        return json_values(found)

    (granted,) = answers('"payment_cap": "1000.00"')
    (detail,) = granted["authorization_details"]
    assert (detail["payment_cap"], detail["batch_cap"]) == ("1000.00", "1000000.00")
    (seen,) = answers('-d token="$TOKEN"')
    assert seen["authorization_details"] == [detail]
    exchanged, seen = answers("-d audience=disburse")
    assert exchanged["issued_token_type"].endswith(":access_token")
    assert (seen["sub"], seen["client_id"]) == ("treasury", "gateway")
    assert seen["act"] == {"sub": "gateway"}
    assert seen["authorization_details"] == [detail]
