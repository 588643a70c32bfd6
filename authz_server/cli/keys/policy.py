"""``keys policy``: print least-privilege policies for the Vaults."""

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, json_option, print_json
from authz_server.operations.keys.policies import write_policies
from keys.backends.vault.policy import VaultRole


@click.command(
    "policy",
    cls=Command,
    here="a policy is made by the settings of the Vaults",
    example="authz-server keys policy --role server",
)
@click.option(
    "--role",
    type=click.Choice([role.value for role in VaultRole]),
    help="Print only the policies of this identity.",
)
@click.option(
    "--vault", "vault_name", help="Print only the policies for this Vault of the settings."
)
@json_option
@pass_invocation
def policy(invocation: Invocation, role: str | None, vault_name: str | None, as_json: bool) -> None:
    """Print least-privilege policies for the Vaults.

    They are in HCL, for Vault and OpenBao alike: one for each Vault and identity, for all its
    rings. `keys doctor` shows at the Vault itself that the server's token can do no more.
    """
    policies = [
        each
        for each in write_policies(invocation.settings())
        if role in {None, each.role} and vault_name in {None, each.vault}
    ]
    if as_json:
        print_json([as_record(each) for each in policies])
        return
    if not policies:
        raise click.ClickException("No ring of the settings is kept in such a Vault.")
    click.echo("\n".join(each.policy for each in policies), nl=False)
