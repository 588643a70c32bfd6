"""``plugin``: show the installed plugins."""

import click

from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, json_option, print_rows
from authz_server.operations.plugins import list_plugins

_COLUMNS = {
    "name": "Name",
    "distribution": "Distribution",
    "version": "Version",
    "enabled": "Enabled",
    "hooks": "Hooks",
    "settings": "Settings",
    "problem": "Problem",
}
_NARROW = {"name": "Name", "enabled": "Enabled", "hooks": "Hooks"}


@click.command(
    "list",
    cls=Command,
    here="it reads the packages that are installed there",
    example="authz-server plugin list --json",
)
@json_option
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """List the installed plugins.

    The enabled ones come first, in the order in which they are called. Each plugin is imported to
    find its hooks, and none is started. Secrets in settings are not shown.
    """
    plugins = list_plugins(invocation.settings().plugins)
    if as_json:
        print_rows(plugins, _COLUMNS, as_json=True)
        return
    rows = [{**as_record(each), "settings": ", ".join(each.settings) or "none"} for each in plugins]
    print_rows(rows, _COLUMNS, as_json=False, narrow=_NARROW)


plugin = add_all(Commands("plugin", help="Show the installed plugins."), [list_])
