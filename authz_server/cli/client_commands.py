"""``client``: the commands of clients, each imported when it runs."""

from authz_server.cli.commands import LazyCommands

_COMMANDS = {
    "create": (
        "authz_server.cli.client:create",
        "Register a client and make its first secret.",
    ),
    "list": (
        "authz_server.cli.client_list:client_list",
        "List the clients, or those with TEXT in them.",
    ),
    "show": (
        "authz_server.cli.client:show",
        "Show one client.",
    ),
    "enable": (
        "authz_server.cli.client:enable",
        "Enable a client.",
    ),
    "disable": (
        "authz_server.cli.client:disable",
        "Disable a client.",
    ),
    "delete": (
        "authz_server.cli.client:delete",
        "Delete a client and its secrets.",
    ),
    "secret": (
        "authz_server.cli.client:secret",
        "Add, rotate and end the secrets of a client.",
    ),
    "update": (
        "authz_server.cli.client:update",
        "Change the named fields of a client.",
    ),
}

client = LazyCommands(
    "client", help="Register and change clients, which ask for tokens.", lazy_commands=_COMMANDS
)
