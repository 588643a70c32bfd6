"""``config``: the commands of the settings file, each imported when it runs."""

from authz_server.cli.commands import LazyCommands

_COMMANDS = {
    "check": (
        "authz_server.cli.config_check:check",
        "Check whether a server can start under the settings.",
    ),
    "show": (
        "authz_server.cli.config_show:show",
        "Show every setting in force.",
    ),
    "example": (
        "authz_server.cli.config_show:example",
        "Print an example of the settings file.",
    ),
}

config = LazyCommands("config", help="Check and show the settings.", lazy_commands=_COMMANDS)
