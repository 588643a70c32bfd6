"""docs/connecting.md: a section for each kind of settings, and commands that exist."""

import re
import shlex

import click
import pytest
from click.testing import CliRunner

from authz_server.cli.root import main
from authz_server.operations.snippets import KINDS
from support.source_tree import ROOT

DOCUMENT = (ROOT / "docs" / "connecting.md").read_text(encoding="utf-8")
TEMPLATES = sorted((ROOT / "authz_server" / "operations" / "snippets").glob("*.txt"))
COMMAND = re.compile(r"(?:^|[`# ])authz-server ([^`\n|]+)", re.MULTILINE)
#: What each section after the general ones has to state.
STATEMENTS = ("Run by the suite", "run by the suite", "Not run here", "The suite runs")


def sections():
    """Return the text of each section by its heading."""
    parts = re.split(r"^## (.+)$", DOCUMENT, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands():
    texts = [DOCUMENT, *(path.read_text(encoding="utf-8") for path in TEMPLATES)]
    return sorted({found for text in texts for found in COMMAND.findall(text)})


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_a_section(kind):
    headings = {heading.lower().replace(".net", "dotnet"): heading for heading in sections()}
    section = sections()[headings[kind]]
    if kind != "njs":
        assert f"authz-server resource-server show mapper --snippet {kind}" in section


def test_each_section_states_whether_the_suite_runs_it():
    general, *particular = sections().items()
    printing, *particular = particular
    assert "a revocation takes effect" in general[0]
    assert printing[0] == "Printing settings"
    silent = [name for name, text in particular if not any(each in text for each in STATEMENTS)]
    assert silent == []


def test_each_other_software_of_the_table_is_named_with_a_setting():
    rows = re.findall(r"^\| ([^|]+) \|[^|]+\|[^|]+\| ([^|]*)\|$", DOCUMENT, re.MULTILINE)
    without = [name for name, shortened in rows if not shortened.strip()]
    # Those accept nothing after a revocation.
    assert all("introspection" in name for name in without)
    assert len(without) == 2
    named = " ".join(name for name, _ in rows)
    for software in ("Envoy", "Spring", "PyJWT", "express", "mod_oauth2", "mod_auth_openidc"):
        assert software in named
    for software in ("go-oidc", "django-oauth-toolkit", "keystonemiddleware", "Kafka", "HAProxy"):
        assert software in named


@pytest.mark.parametrize("command", commands())
def test_each_command_is_one_of_ours(command, monkeypatch):
    """Parses as it stands; nothing is done."""
    monkeypatch.setattr(click.Command, "invoke", lambda _self, _context: None)
    result = CliRunner().invoke(main, shlex.split(command))
    assert (result.exit_code, result.output) == (0, "")


def test_there_are_commands_in_the_document_and_in_the_settings():
    found = commands()
    assert len(found) > len(KINDS)
    assert "resource-server update @id@ --token-type JWT" in found


def test_a_command_that_is_not_ours_would_be_found(monkeypatch):
    monkeypatch.setattr(click.Command, "invoke", lambda _self, _context: None)
    for wrong in ("client update ministry --token-lifetime 300", "resource-server print mapper"):
        assert CliRunner().invoke(main, shlex.split(wrong)).exit_code == 2


def test_the_readme_lists_the_document():
    assert "](docs/connecting.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
