"""``authz-server``: the outermost command."""

import click

from authz_server import __version__
from authz_server.cli.client import client
from authz_server.cli.commands import RootCommands, add_all
from authz_server.cli.config import config
from authz_server.cli.database import db
from authz_server.cli.demo import demo
from authz_server.cli.init import init
from authz_server.cli.invocation import shared_options
from authz_server.cli.keys import keys
from authz_server.cli.resource_server import resource_server
from authz_server.cli.revoke import revoke
from authz_server.cli.scope import scope
from authz_server.cli.serve import serve
from authz_server.cli.token import token


@click.group("authz-server", cls=RootCommands)
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """An OAuth 2.0 authorization server for machines: scoped tokens for G2P Connect.

    \b
    Begin with:  authz-server init
    Then:        authz-server serve
    To look on:  authz-server demo

    A command beside a running server takes effect there within a second. Secrets are never taken
    as arguments: they are asked for, or read from standard input or a file. The exit status is 0
    only when everything was done.
    """  # noqa: D301 - \b is click's mark of lines to be left as they are


main.params.extend(shared_options(with_environment=True))
add_all(
    main,
    [init, serve, demo, config, db, client, resource_server, scope, token, revoke, keys],
)
