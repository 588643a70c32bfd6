"""Write the least-privilege policies for the Vaults of the settings."""

from collections.abc import Iterator
from dataclasses import dataclass

from authz_server.settings import Settings
from keys.backends.vault.policy import VaultPlace, VaultRole, find_place, grants_for, render_policy

_PURPOSES = {
    VaultRole.SERVER: "the server: signs with a pinned version, and reads",
    VaultRole.ROTATOR: "the rotator: makes versions and fences old ones; it cannot sign",
    VaultRole.EMERGENCY: "people in an emergency: may also take versions back",
    VaultRole.DESTROY: "people who delete versions that no token needs",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultPolicy:
    """A policy in HCL for one Vault and identity."""

    vault: str
    role: str
    name: str
    rings: tuple[str, ...]
    policy: str


def write_policies(settings: Settings) -> Iterator[VaultPolicy]:
    """Yield the policies of every Vault with a ring, one for each identity."""
    for vault in settings.keys.vaults:
        places = places_in(settings, vault)
        if not places:
            continue
        for role in VaultRole:
            name = f"authz-server-{role}"
            rings = ", ".join(sorted(places))
            title = f"Policy {name} in the Vault {vault}, rings {rings}.\n# For {_PURPOSES[role]}."
            selves = {
                place: settings.keys.rings[ring].drive == "self" for ring, place in places.items()
            }
            yield VaultPolicy(
                vault=vault,
                role=role.value,
                name=name,
                rings=tuple(sorted(places)),
                policy=render_policy(title, grants_for(role, selves)),
            )


def places_in(settings: Settings, vault: str) -> dict[str, VaultPlace]:
    """Return the place of each ring's keys in one Vault, by the name of the ring."""
    found = {name: find_place(ring.backend) for name, ring in settings.keys.rings.items()}
    return {
        name: place for name, place in found.items() if place is not None and place.vault == vault
    }
