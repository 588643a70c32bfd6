"""``changes``: the commands of changes that need a second person, each imported when it runs."""

from authz_server.cli.commands import LazyCommands

_COMMANDS = {
    "list": (
        "authz_server.cli.change_list:list_",
        "List the changes that wait for a second person.",
    ),
    "show": (
        "authz_server.cli.change_list:show",
        "Show a change with its diff.",
    ),
    "approve": (
        "authz_server.cli.change_decisions:approve",
        "Approve a change, and carry it out.",
    ),
    "reject": (
        "authz_server.cli.change_decisions:reject",
        "Reject a change.",
    ),
    "withdraw": (
        "authz_server.cli.change_decisions:withdraw",
        "Withdraw a change.",
    ),
    "break-glass": (
        "authz_server.cli.change_decisions:break_glass",
        "Carry out at once a change that waits.",
    ),
    "confirm": (
        "authz_server.cli.change_decisions:confirm",
        "Confirm an act that was done without an approval.",
    ),
}

changes = LazyCommands(
    "changes", help="Approve changes that need a second person.", lazy_commands=_COMMANDS
)
