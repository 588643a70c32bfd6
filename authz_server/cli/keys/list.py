"""``keys list``: list the signing keys of every ring."""

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import json_option, print_rows
from authz_server.operations.keys.list import list_keys

_COLUMNS = {
    "ring": "Ring",
    "algorithm": "Algorithm",
    "version": "Version",
    "kid": "Key id",
    "state": "State",
    "signs": "Signs now",
    "published_at": "Published",
    "activate_at": "Signs from",
}
_NARROW = {
    "ring": "Ring",
    "version": "Version",
    "kid": "Key id",
    "state": "State",
    "signs": "Signs",
}


@click.command("list", cls=Command, remote=True, example="authz-server keys list --json")
@json_option
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """List the signing keys of every ring.

    It prints the id, the state and the times of each key, never a private key.
    """
    with invocation.operations() as carry_out:
        keys = carry_out(list_keys)
    print_rows(keys, _COLUMNS, as_json=as_json, narrow=_NARROW)
