"""Explanations at the command line, and the commands of docs/operations.md as printed."""

import shlex

import pytest

from authz_server.assembly import utc_now
from authz_server.assembly.server import ServerServices
from authz_server.database.orm import open_database
from authz_server.settings import load_settings
from authz_server.waiting import run
from support.documents import shell_blocks

DOCUMENT, SECTION = "docs/operations.md", "## Explaining a refusal"


@pytest.fixture
def issued(registered):
    """The command line, and a token of the client `ministry`."""
    database = open_database(load_settings(registered.config).database)
    services = ServerServices(load_settings(registered.config), database, utc_now)
    services.feed.poll()
    client = services.directory.find("ministry")
    granted = services.rules.decide(client, "client_credentials", "mapper/link", ())
    token = run(services.issuer.issue(granted, None)).access_token
    database.close()
    return registered, token


def test_a_request_is_explained_as_text_and_json(issued):
    """A refusal is an explanation too: the command succeeds."""
    cli, _ = issued
    granted = cli.json("explain", "request", "ministry", "--scope", "mapper/link")
    assert (granted["granted"], granted["audience"]) == (True, ["https://mapper.example"])
    text = cli.must("explain", "request", "ministry", "--scope", "mapper/resolve")
    assert "scope_not_granted" in text
    assert "client update ministry" in text
    before = cli.audit_records()
    cli.must("client", "disable", "ministry")
    found = cli.json("explain", "request", "ministry")
    assert (found["cause"], found["error"], found["status"]) == (
        *("client_disabled", "invalid_client", 401),
    )
    assert len(cli.audit_records()) == len(before) + 1
    assert "--from" in cli.refused("explain", "request", "ministry", "--from", "here")
    assert "--method" in cli.refused("explain", "request", "ministry", "--method", "password")


def test_a_token_is_explained_and_left_nowhere(issued, tmp_path):
    """It is neither printed nor recorded."""
    cli, token = issued
    active = cli.json("explain", "token", "--for", "mapper", input=token)
    assert (active["active"], active["scopes"]) == (True, ["mapper/link"])
    assert active["claims"]["client_id"] == "ministry"
    cli.must("stop", "client", "ministry", "--reason", "a test", "--yes")
    text = cli.must("explain", "token", "--for", "mapper", input=token)
    assert "client_stopped" in text
    assert "stop lift client ministry" in " ".join(text.split())
    assert "resource-server list" in cli.refused("explain", "token", "--for", "x", input=token)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert [path for path in written if token.encode() in path.read_bytes()] == []


def test_the_commands_of_the_document(issued):
    """Each runs as printed."""
    cli, token = issued
    requests, explained = shell_blocks(DOCUMENT, SECTION, dialect="sqlite")
    commands = [shlex.split(line) for line in requests.splitlines()]
    granted, refused = [cli.must(*arguments) for _, *arguments in commands]
    assert "https://mapper.example" in granted
    assert "scope_not_granted" in refused
    printing, _, piped = explained.partition(" | authz-server ")
    assert printing == 'printf %s "$TOKEN"'
    assert "https://mapper.example" in cli.must(*shlex.split(piped), input=token)
