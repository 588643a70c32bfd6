"""``authz-server``: the root command."""

import click

from authz_server import __version__
from authz_server.cli.commands import RootCommands
from authz_server.cli.invocation import access_options, shared_options

_COMMANDS = {
    "init": (
        "authz_server.cli.init:init",
        "Make settings, secrets, database and first keys.",
    ),
    "serve": (
        "authz_server.cli.serve:serve",
        "Run the server.",
    ),
    "demo": (
        "authz_server.cli.demo.command:demo",
        "Show a token's life on a server of its own, from nothing.",
    ),
    "config": (
        "authz_server.cli.config:config",
        "Check and show the settings.",
    ),
    "doctor": (
        "authz_server.cli.doctor:doctor",
        "Check settings and clients against security profiles.",
    ),
    "docs": (
        "authz_server.cli.docs:docs",
        "Print the folder with the documents.",
    ),
    "db": (
        "authz_server.cli.database:db",
        "Upgrade, check, copy and purge the database.",
    ),
    "client": (
        "authz_server.cli.client_commands:client",
        "Register and change clients, which ask for tokens.",
    ),
    "registration-token": (
        "authz_server.cli.registration_token:registration_token",
        "Permit clients to register themselves.",
    ),
    "resource-server": (
        "authz_server.cli.resource_server:resource_server",
        "Register and change the resource servers of tokens.",
    ),
    "event-stream": (
        "authz_server.cli.event_stream:event_stream",
        "Send security events to resource servers.",
    ),
    "scope": (
        "authz_server.cli.scope:scope",
        "Add, change and assign scopes, which tokens carry.",
    ),
    "import": (
        "authz_server.cli.import_:import_",
        "Make a declarative file of another system's clients.",
    ),
    "export": (
        "authz_server.cli.export:export",
        "Write what is registered to a file.",
    ),
    "apply": (
        "authz_server.cli.apply:apply",
        "Make what is registered agree with files.",
    ),
    "token": (
        "authz_server.cli.token:token",
        "Inspect one token, or revoke it.",
    ),
    "explain": (
        "authz_server.cli.explain:explain",
        "Explain a request or a token; nothing is issued.",
    ),
    "revoke": (
        "authz_server.cli.revoke:revoke",
        "Revoke many tokens at once.",
    ),
    "stop": (
        "authz_server.cli.stop:stop",
        "Stop a scope, client, resource server or programme.",
    ),
    "audit": (
        "authz_server.cli.audit:audit",
        "Search, export and verify the audit records.",
    ),
    "changes": (
        "authz_server.cli.changes:changes",
        "Approve changes that need a second person.",
    ),
    "report": (
        "authz_server.cli.report:report",
        "Report unused permissions and missing owners.",
    ),
    "admin": (
        "authz_server.cli.admin:admin",
        "Prepare the admin API.",
    ),
    "operator": (
        "authz_server.cli.operator:operator",
        "Create the people who administer the server.",
    ),
    "plugin": (
        "authz_server.cli.plugin:plugin",
        "Show the installed plugins.",
    ),
    "keys": (
        "authz_server.cli.keys:keys",
        "Rotate, revoke and examine the signing keys.",
    ),
}


_HELP = """
An OAuth 2.0 authorization server for machines.

It issues scoped tokens for G2P Connect.

\b
Begin with:  authz-server init
Then:        authz-server serve
To try it:   authz-server demo

A change takes effect on running servers within a second. Secrets are never arguments: they are
asked for, or read from standard input or a file. The exit status is 0 only when everything was
done.

With --server, many commands work from another machine, by the admin API.
"""

main = RootCommands("authz-server", help=_HELP, lazy_commands=_COMMANDS)
click.version_option(__version__, message="%(prog)s %(version)s")(main)
main.params.extend([*shared_options(with_environment=True), *access_options()])
