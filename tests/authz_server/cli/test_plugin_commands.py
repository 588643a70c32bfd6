"""Commands of plugins: looked up by the settings file, and refused by name."""

import codecs
import subprocess
import sys
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from authz_server.cli import plugin_commands
from authz_server.cli.root import main
from authz_server.hookspecs import hookimpl
from support.loaded_plugins import plugin_with
from support.settings_file import write_settings

BROKEN = "[plugins]\nenabled = ["


class Greeting:
    @hookimpl
    def start(self, settings):
        self._words = settings["words"]

    @hookimpl
    def register_commands(self):
        @click.command("greet", help="Greet a client.")
        @click.argument("name")
        @click.option("--debug", is_flag=True, help="Of its own.")
        def greet(name, debug):
            click.echo(f"{self._words}, {name}! {debug}")

        return [greet]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function of arguments that runs the command line with the plugin `greeting` installed."""
    folder = tmp_path / "greeting-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
    entry_points = "[authz_server.plugins]\ngreeting = greeting_of_a_test:plugin\n"
    (folder / "entry_points.txt").write_text(entry_points)
    monkeypatch.syspath_prepend(tmp_path)

    def run(*arguments, plugin=Greeting, settings=True, enabled=("greeting",)):
        module = SimpleNamespace(plugin=plugin)
        monkeypatch.setitem(sys.modules, "greeting_of_a_test", module)
        plugins = {"enabled": list(enabled), "settings": {"greeting": {"words": "Hello"}}}
        if settings:
            write_settings(tmp_path, f"sqlite:///{tmp_path}/x.db", {"plugins": plugins})
        return CliRunner().invoke(main, [str(each) for each in arguments])

    run.config = tmp_path / "authz-server.toml"
    return run


def test_hook_register_commands_adds_a_command_wherever_the_settings_file_is_named(
    run, monkeypatch
):
    config = run.config
    for arguments in (
        ("--config", config, "greet", "payer"),
        ("greet", "payer", "--config", config),
        ("greet", "payer", f"--config={config}"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.output) == (0, "Hello, payer! False\n"), arguments
    config.write_bytes(codecs.BOM_UTF8 + config.read_bytes())
    assert run("greet", "payer", "--config", config, settings=False).exit_code == 0
    monkeypatch.setenv("AUTHZ_SERVER_CONFIG", str(config))
    assert run("greet", "payer", "--debug").output == "Hello, payer! True\n"


def test_hook_register_commands_is_listed_in_the_help(run, monkeypatch):
    listed = run("--config", run.config, "--help").output
    assert "Commands of plugins:\n  greet  Greet a client.\n" in listed
    own = run("--config", run.config, "greet", "--help").output
    assert "--config FILE" in own
    assert own.count("--debug") == 1
    assert "Of its own." in own
    monkeypatch.setenv("AUTHZ_SERVER_CONFIG", str(run.config))
    assert "Commands of plugins:" in run("--help").output


def test_without_an_enabled_plugin_nothing_is_looked_for(run):
    help_text = run("--config", run.config, "--help", enabled=()).output
    assert "Commands of plugins" not in help_text
    assert help_text == run("--config", "no-such-file.toml", "--help", enabled=()).output
    result = run("--config", run.config, "greet", "payer", enabled=())
    assert result.exit_code == 2
    assert "No such command 'greet'." in result.output


def test_the_help_imports_no_plugin_where_none_is_enabled(tmp_path):
    config = write_settings(tmp_path, f"sqlite:///{tmp_path}/x.db", {"plugins": {"enabled": []}})
    code = (
        "import sys\nfrom authz_server.cli.root import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "print(sorted({'pluggy', 'msgspec', 'sqlalchemy'} & set(sys.modules)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code, "--config", str(config), "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("name", "returned", "problem"),
    [
        ("register_commands", lambda: [print], "plugin greeting: register_commands failed"),
        ("register_commands", lambda: [click.Command(None)], "is not a click.Command with a name"),
        (
            "register_commands",
            lambda: [click.Command("client")],
            "'client': provided by both authz-server",
        ),
        (
            "register_commands",
            lambda: [click.Command("x")] * 2,
            "'x': provided by both plugin greeting",
        ),
        ("start", lambda settings: settings["missing"], "plugin greeting: it cannot start"),
    ],
)
def test_hook_register_commands_that_cannot_be_used_is_reported(run, name, returned, problem):
    plugin = plugin_with(name, returned)
    result = run("--config", run.config, "greet", "payer", plugin=plugin)
    assert result.exit_code == 2
    assert "No such command 'greet'" in result.output
    assert problem in " ".join(result.output.split())
    listed = run("--config", run.config, "--help", plugin=plugin)
    assert listed.exit_code == 0
    assert problem in " ".join(listed.output.split())


def test_the_server_s_own_commands_do_not_need_the_plugin(run):
    plugin = plugin_with("register_commands", lambda: [click.Command("config")])
    assert run("--config", run.config, "config", "--help", plugin=plugin).exit_code == 0


def test_a_settings_file_that_cannot_be_read_enables_nothing(run):
    for unreadable in (BROKEN + "[" * 99_999, BROKEN):
        run.config.write_text(unreadable)
        assert plugin_commands.find_plugin_commands(run.config, []) == {}
    result = run("--config", run.config, "greet", "payer", settings=False)
    assert "No such command 'greet'." in result.output
