"""``audit``: the commands of audit records, each imported when it runs."""

from authz_server.cli.commands import LazyCommands

_COMMANDS = {
    "search": (
        "authz_server.cli.audit_search:search",
        "Search the records of changes, tokens and refusals.",
    ),
    "export": (
        "authz_server.cli.audit_search:export",
        "Write the records of a search as CSV or JSON Lines.",
    ),
    "who": (
        "authz_server.cli.audit_who:who",
        "Show who could use a scope at a time, and who did.",
    ),
    "verify": (
        "authz_server.cli.audit_verify:verify",
        "Verify that no audit record was changed or removed.",
    ),
}

audit = LazyCommands(
    "audit", help="Search, export and verify the audit records.", lazy_commands=_COMMANDS
)
