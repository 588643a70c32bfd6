"""The help of every command: synopsis, paragraph, example, options in sentences, whole lines."""

import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from click.testing import CliRunner

from authz_server.cli.root import main

WIDTH = 80
LONGEST_SYNOPSIS = 59
#: What an example names and a command wants to exist.
FILES = ("token.txt", "audit.log")


class Named(NamedTuple):
    """A command and the words that lead to it."""

    path: tuple[str, ...]
    command: click.Command

    @property
    def words(self) -> str:
        """As it is typed."""
        return " ".join(("authz-server", *self.path))


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[Named]:
    """Yield a command and every command below it."""
    yield Named(path, command)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None, name
            yield from walk(below, (*path, name))


@pytest.fixture(scope="module")
def commands() -> list[Named]:
    """Every group and command, those of plugins too."""
    return list(walk(main))


@pytest.fixture(scope="module")
def leaves(commands) -> list[Named]:
    """Every command that does something."""
    return [each for each in commands if not isinstance(each.command, click.Group)]


def _options(command: click.Command) -> list[click.Option]:
    return [each for each in command.params if isinstance(each, click.Option)]


def test_every_command_is_found(leaves):
    """The walk reaches each level, through groups that are imported when they are needed."""
    words = {each.words for each in leaves}
    assert {
        "authz-server init",
        "authz-server client secret end",
        "authz-server keys rotate",
    } <= words
    assert len(words) > 45


@pytest.mark.parametrize(
    ("words", "near"),
    [("clinet list", "client"), ("keys rotat", "rotate"), ("--debug cofnig", "config")],
)
def test_a_mistyped_command_is_answered_with_the_nearest(words, near):
    result = CliRunner().invoke(main, words.split())
    assert result.exit_code == 2
    assert f"Did you mean {near!r}?" in result.stderr


def test_a_command_like_no_other_is_answered_without_a_guess():
    result = CliRunner().invoke(main, ["xyzzy"])
    assert result.stderr.splitlines()[-1] == "Error: No such command 'xyzzy'."


def test_a_synopsis_is_a_sentence_under_60_characters(commands):
    """The first line is what the list of commands shows."""
    synopses = {
        each.words: inspect.cleandoc(each.command.help or "-").splitlines()[0]
        for each in commands[1:]
    }
    wrong = {
        words: first
        for words, first in synopses.items()
        if not (first[0].isupper() and first.endswith(".") and len(first) <= LONGEST_SYNOPSIS)
    }
    assert wrong == {}


def test_a_command_has_a_paragraph_after_its_synopsis(leaves):
    """It says what the options cannot."""
    without = []
    for each in leaves:
        _, blank, *rest = [*inspect.cleandoc(each.command.help or "").splitlines(), "", ""]
        if blank or not "".join(rest):
            without.append(each.words)
    assert without == []


def test_a_command_has_an_example_that_it_accepts(leaves, tmp_path, monkeypatch):
    """The example is parsed as the command line parses it; nothing is done."""
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        (tmp_path / name).touch()
    wrong = {}
    for each in leaves:
        example = getattr(each.command, "example", "")
        if not example.startswith(each.words):
            wrong[each.words] = example
            continue
        words = shlex.split(example.replace("\\\n", " "))[1 + len(each.path) :]
        try:
            each.command.make_context(each.path[-1], words, parent=click.Context(main))
        except click.ClickException as error:
            wrong[each.words] = error.format_message()
    assert wrong == {}


def test_options_are_sentences(commands):
    """Each begins with a capital or a word of the protocol and ends with a full stop."""
    wrong = {}
    for each in commands:
        for option in _options(each.command):
            text = option.help or "-"
            begins = text[0].isupper() or "_" in text.split()[0]
            # A default goes in brackets.
            if not (begins and text.endswith(".")) or re.search(r"\belse\b", text):
                wrong[f"{each.words} {option.opts[0]}"] = text
    assert wrong == {}


def test_defaults_stand_in_brackets(commands):
    """A value that an option has when it is left out is shown."""
    hidden = []
    for each in commands:
        context = click.Context(each.command)
        for option in _options(each.command):
            default = option.get_default(context)
            has_value = isinstance(default, str | int | Path) and default not in {"", False}
            if has_value and option.expose_value and not option.show_default:
                hidden.append(f"{each.words} {option.opts[0]}")
    assert hidden == []


def test_no_line_of_any_help_is_cut(commands):
    """In 80 columns every line fits, and none ends in an ellipsis."""
    cut = []
    for each in commands:
        result = CliRunner().invoke(main, [*each.path, "--help"], terminal_width=WIDTH)
        assert result.exit_code == 0, result.output
        _, _, text = result.output.partition("\n\n")  # The usage line has ellipses of its own.
        cut += [
            f"{each.words}: {line}"
            for line in text.splitlines()
            if len(line) > WIDTH or line.rstrip().endswith("...")
        ]
    assert cut == []


def test_a_description_has_no_gaps(commands):
    """Blanks that indent its source are not shown, also where a description is put together."""
    gaps = []
    for each in commands:
        text = inspect.cleandoc(each.command.help or "")
        if "\b" not in text and re.search(r"  |\n ", text):
            gaps.append(each.words)
    assert gaps == []
