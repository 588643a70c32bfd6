"""``keys policy``: the least-privilege policies for the Vaults of the settings."""

from collections.abc import Iterator
from typing import Any

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import json_option, print_json
from authz_server.settings import Settings
from keys.backends.vault.places import VaultPlace, find_place
from keys.backends.vault.policies import VaultRole, grants_for, render_policy

_WHAT = {
    VaultRole.SERVER: "the server: signs with a pinned version, and reads",
    VaultRole.ROTATOR: "the rotator: makes versions and fences old ones; it cannot sign",
    VaultRole.EMERGENCY: "people in an emergency: may also take versions back",
    VaultRole.DESTROY: "people who delete versions that nobody needs",
}


@click.command("policy", cls=Command)
@click.option("--role", type=click.Choice([role.value for role in VaultRole]), help="Only its.")
@click.option("--vault", "vault_name", help="Only for this Vault of the settings.")
@json_option
@pass_invocation
def policy(invocation: Invocation, role: str | None, vault_name: str | None, as_json: bool) -> None:
    """Print the least-privilege policies, in HCL for Vault and OpenBao alike.

    One for each Vault and identity, covering all rings that are kept there. `keys doctor` shows
    against the Vault itself that the server's token can do no more.
    """
    policies = [
        each
        for each in describe_policies(invocation.settings())
        if role in {None, each["role"]} and vault_name in {None, each["vault"]}
    ]
    if as_json:
        print_json(policies)
        return
    if not policies:
        raise click.ClickException("No ring of the settings is kept in such a Vault.")
    click.echo("\n".join(each["policy"] for each in policies), nl=False)


def describe_policies(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield the policies of every Vault and identity: its name, its rings, its text."""
    for vault in settings.keys.vaults:
        places = places_in(settings, vault)
        if not places:
            continue
        for role in VaultRole:
            name = f"authz-server-{role}"
            rings = ", ".join(sorted(places))
            title = f"Policy {name} in the Vault {vault}, rings {rings}.\n# For {_WHAT[role]}."
            selves = {
                place: settings.keys.rings[ring].drive == "self" for ring, place in places.items()
            }
            yield {
                "vault": vault,
                "role": role.value,
                "name": name,
                "rings": sorted(places),
                "policy": render_policy(title, grants_for(role, selves)),
            }


def places_in(settings: Settings, vault: str) -> dict[str, VaultPlace]:
    """Return where in one Vault each ring's keys are, by the ring's name."""
    found = {name: find_place(ring.backend) for name, ring in settings.keys.rings.items()}
    return {
        name: place for name, place in found.items() if place is not None and place.vault == vault
    }
