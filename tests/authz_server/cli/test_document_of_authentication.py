"""The commands and programs of docs/client-authentication.md, as printed."""

import itertools
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

from werkzeug.test import Client

from authz_server.app import EXTENSION, create_app
from authz_server.settings import load_settings
from support.documents import shell_blocks
from support.settings_file import ISSUER
from support.source_tree import ROOT

DOCUMENT = "docs/client-authentication.md"
DOCUMENTED_ISSUER = "https://auth.example.org"


def parameters(command: str) -> str:
    """Return the form that a curl command sends."""
    _, *arguments = shlex.split(command.replace("\\\n", ""))
    pairs = []
    for option, value in itertools.pairwise(arguments):
        if option == "-d":
            pairs.append(tuple(value.split("=", 1)))
        elif option == "--data-urlencode":
            name, _, file = value.partition("@")
            pairs.append((name, Path(file).read_text()))
    return urlencode(pairs)


def test_the_commands_of_the_document(stocked, tmp_path, monkeypatch):
    """Cases D48, D51."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / DOCUMENT).read_text()
    make_key, make_assertion = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    subprocess.run([sys.executable, "-c", make_key], check=True)
    shutil.copy("payer.jwks.json", "mapper.jwks.json")
    server = ("resource-server", "create", "mapper", "--name", "Mapper", "--scope", "mapper/*")
    stocked.must(*server, "--identifier", "https://mapper.example")
    blocks = shell_blocks(DOCUMENT, dialect="sqlite")
    printed = {}
    for block in blocks:
        if block.startswith("authz-server") and "--jwks-uri" not in block:
            _, *arguments = shlex.split(block)
            printed[block] = stocked.must(*arguments)
    assert len(printed) == 6
    stocked.must("keys", "init")

    subprocess.run(
        [sys.executable, "-c", make_assertion.replace(DOCUMENTED_ISSUER, ISSUER)], check=True
    )
    app = create_app(load_settings(stocked.config))
    try:
        client, form = Client(app), "application/x-www-form-urlencoded"
        by_assertion = next(parameters(each) for each in blocks if "client_assertion" in each)
        answers = [
            client.post("/oauth2/token", data=by_assertion, content_type=form) for _ in range(2)
        ]
        assert [answer.status_code for answer in answers] == [200, 401]
        by_secret = next(each for each in blocks if each.startswith("curl -u ministry:SECRET"))
        secret = printed[blocks[0]].split()[-1]
        answer = client.post(
            "/oauth2/token",
            data=parameters(by_secret),
            content_type=form,
            auth=("ministry", secret),
        )
        assert (answer.status_code, answer.json["token_type"]) == (200, "Bearer")
    finally:
        services = app.extensions[EXTENSION]
        services.maintenance.stop()
        services.database.close()
        services.sink.close()
    stocked.must(*shlex.split(next(each for each in blocks if "--jwks-uri" in each))[1:])
