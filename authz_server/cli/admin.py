"""``admin``: prepare the admin API."""

from textwrap import wrap

import click

from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, echo_status, json_option, print_change
from authz_server.operations.admin_api import ADMIN_SCOPES, register_admin_api
from keys.plurals import counted

_NEXT_STEPS = """\
A caller is a client with some of its scopes. The first one, for example:

  authz-server client create console --name "Admin client" \\
      {scopes}

It asks for a token with the resource {identifier} and sends it to {url}/admin/v1.

People use the console at {url}. This command prints a link for the passkey of the first one:

  authz-server operator create ada --role security-officer\
"""


@click.command(
    "init", cls=Command, here="it registers the admin API itself", example="authz-server admin init"
)
@json_option
@pass_invocation
def init(invocation: Invocation, as_json: bool) -> None:
    """Register the admin API as a resource server.

    Its scopes are the permissions of its callers: each client obtains tokens with those that it is
    granted. To repeat the command changes nothing, and adds the scopes of a newer release.
    """
    settings = invocation.settings()
    with invocation.services() as services:
        registered = register_admin_api(services, actor=invocation.actor)
    added = counted(len(registered.added_scopes), "scope is added", "scopes are added")
    sentence = f"The admin API is the resource server {registered.id}; {added}."
    print_change(as_record(registered), sentence, as_json=as_json)
    if not settings.admin.enabled:
        echo_status("The admin API is off: set enabled = true in [admin], and reload the server.")
    scopes = " ".join(f"--scope={name}" for name, risk, _ in ADMIN_SCOPES if risk == "read")
    scopes = " \\\n      ".join(wrap(scopes, 68, break_on_hyphens=False))
    echo_status(
        _NEXT_STEPS.format(scopes=scopes, identifier=registered.identifier, url=settings.admin.url)
    )


admin = add_all(Commands("admin", help="Prepare the admin API."), [init])
