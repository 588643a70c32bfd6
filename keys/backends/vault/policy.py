"""The least-privilege policies of each identity in a Vault or OpenBao, in HCL.

Four identities, so that none can do what only another needs: the *server* signs and reads, the
*rotator* makes versions and fences, *emergency* is for people who also take versions back, and
*destroy* for people who delete what is not needed any more. For keys in KV every identity that
looks at a version reads its private key: custody there is as good as these policies.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

DEFAULT_VAULT = "main"
VAULT_SCHEMES = frozenset({"transit", "kv"})
#: The settings of a transit key that let its private half leave the Vault. Once switched on,
#: neither can be switched off again.
LEAKS = ("exportable", "allow_plaintext_backup")


class VaultPlace(NamedTuple):
    """A ring's key in a Vault.

    Attributes:
        scheme: ``transit`` or ``kv``.
        vault: the Vault's name in the settings.
        mount: the mount path of the secrets engine.
        name: the transit key, or the folder of secrets.
    """

    scheme: str
    vault: str
    mount: str
    name: str


def find_place(uri: str) -> VaultPlace | None:
    """Return the place that a backend's URI names, or None if it is in no Vault."""
    parts = urlsplit(uri)
    if parts.scheme not in VAULT_SCHEMES:
        return None
    vault = parse_qs(parts.query).get("vault", [DEFAULT_VAULT])[0]
    if parts.scheme == "kv":
        return VaultPlace("kv", vault, unquote(parts.netloc), parts.path.strip("/"))
    whole = f"{parts.netloc}{parts.path}".strip("/")
    mount, _, name = whole.rpartition("/")
    return VaultPlace("transit", vault, mount, name)


class VaultRole(StrEnum):
    """An identity in the Vault."""

    SERVER = "server"
    ROTATOR = "rotator"
    EMERGENCY = "emergency"
    DESTROY = "destroy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One path of a policy.

    Attributes:
        path: the path without ``/v1/``.
        capabilities: the capabilities on the path.
        required_parameters: the parameters that each request must have.
        allowed_parameters: the parameters that a request may have; empty: any.
    """

    path: str
    capabilities: tuple[str, ...]
    required_parameters: tuple[str, ...] = ()
    allowed_parameters: tuple[str, ...] = field(default=())


#: A token needs these to keep itself alive, to distinguish a dead token from a narrow policy, to
#: end itself, and to be examined. Without the default policy it has none of them.
OWN_TOKEN = (
    Grant(path="auth/token/lookup-self", capabilities=("read",)),
    Grant(path="auth/token/renew-self", capabilities=("update",)),
    Grant(path="auth/token/revoke-self", capabilities=("update",)),
    Grant(path="sys/capabilities-self", capabilities=("update",)),
)
_SIGN_FLOOR = "min_encryption_version"
_VERIFY_FLOOR = "min_decryption_version"


def grants_for(
    role: VaultRole, places: Mapping[VaultPlace, bool] | Iterable[VaultPlace]
) -> tuple[Grant, ...]:
    """Return the grants of an identity.

    Args:
        role: the identity.
        places: its rings' keys; as a mapping, each with whether its server also rotates (drive
            "self"), which then needs in one identity what is otherwise two's.
    """
    selves = dict(places) if isinstance(places, Mapping) else dict.fromkeys(places, False)
    grants: dict[str, Grant] = {}
    for place, itself in selves.items():
        for grant in _grants(role, place):
            grants[grant.path] = grant
        if itself and role is VaultRole.SERVER:
            for grant in _grants(VaultRole.ROTATOR, place):
                grants[grant.path] = _both(grants.get(grant.path), grant)
    return (*grants.values(), *OWN_TOKEN)


def _both(held: Grant | None, other: Grant) -> Grant:
    if held is None:
        return other
    more = tuple(each for each in other.capabilities if each not in held.capabilities)
    return Grant(path=held.path, capabilities=held.capabilities + more)


def _grants(role: VaultRole, place: VaultPlace) -> Iterator[Grant]:
    if place.scheme == "kv":
        yield from _kv_grants(role, place)
    else:
        yield from _transit_grants(role, place)


def _transit_grants(role: VaultRole, place: VaultPlace) -> Iterator[Grant]:
    key = f"{place.mount}/keys/{place.name}"
    if role is VaultRole.SERVER:
        yield Grant(
            path=f"{place.mount}/sign/{place.name}",
            capabilities=("update",),
            # Without a pinned version a token may name another one in its header.
            required_parameters=("key_version",),
        )
    yield Grant(path=key, capabilities=("read",))
    if role in {VaultRole.ROTATOR, VaultRole.EMERGENCY}:
        yield Grant(path=f"{key}/rotate", capabilities=("update",))
    floors = {
        VaultRole.ROTATOR: (_SIGN_FLOOR,),
        VaultRole.EMERGENCY: (_SIGN_FLOOR, _VERIFY_FLOOR),
        VaultRole.DESTROY: (_SIGN_FLOOR, _VERIFY_FLOOR),
    }
    if role in floors:
        yield Grant(path=f"{key}/config", capabilities=("update",), allowed_parameters=floors[role])
    if role is VaultRole.DESTROY:
        yield Grant(
            path=f"{key}/trim",
            capabilities=("update",),
            allowed_parameters=("min_available_version",),
        )


def _kv_grants(role: VaultRole, place: VaultPlace) -> Iterator[Grant]:
    data = f"{place.mount}/data/{place.name}/*"
    metadata = f"{place.mount}/metadata/{place.name}"
    yield Grant(path=metadata, capabilities=("list",))
    if role in {VaultRole.ROTATOR, VaultRole.EMERGENCY}:
        # Never "update": a version is written once.
        yield Grant(path=data, capabilities=("read", "create"))
    elif role is VaultRole.SERVER:
        yield Grant(path=data, capabilities=("read",))
    else:
        yield Grant(path=data, capabilities=("read",))
        yield Grant(path=f"{metadata}/*", capabilities=("delete",))


def render_policy(title: str, grants: Iterable[Grant]) -> str:
    """Return a policy in HCL, the same for Vault and OpenBao; ``title`` becomes a comment."""
    blocks = [f"# {title}\n"]
    for grant in grants:
        lines = [f"  capabilities = {json.dumps(list(grant.capabilities))}"]
        if grant.required_parameters:
            lines.append(f"  required_parameters = {json.dumps(list(grant.required_parameters))}")
        if grant.allowed_parameters:
            lines.append("  allowed_parameters = {")
            lines += [f"    {json.dumps(name)} = []" for name in grant.allowed_parameters]
            lines.append("  }")
        blocks.append("\n".join([f"path {json.dumps(grant.path)} {{", *lines, "}\n"]))
    return "\n".join(blocks)
