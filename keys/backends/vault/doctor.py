"""Check the rights of a token in a Vault: those that it needs, and no others.

Rights are read from ``sys/capabilities-self``, which changes nothing. Which parameters a path
takes, it does not cover. That is tried with requests that have no effect even where they are let
through: a signature over a fixed text that is not a token, and a setting that is false already.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from keys.backends.vault.policy import (
    LEAKS,
    OWN_TOKEN,
    Grant,
    VaultPlace,
    VaultRole,
    grants_for,
)
from keys.backends.vault.values import names_of, number_of
from keys.errors import BackendDenied
from keys.plurals import counted

if TYPE_CHECKING:  # connections are for the command that has a Vault
    from keys.backends.vault.client import VaultClient

#: Its signature is not a token's: a token has dots.
NO_TOKEN = b"authz-server doctor"
_OK_STATUS = 200
_FIRST_ERROR_STATUS = 400
_CAPABILITIES = "sys/capabilities-self"
#: A token that lives shorter than this part of its first life was not renewed in time.
_LEAST_LIFE_SHARE = 0.25


class Level(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding.

    Attributes:
        level: its severity.
        check: the property that was examined, for example ``privilege.too_wide``.
        subject: the Vault, path, ring or key.
        detail: the finding as text.
    """

    level: Level
    check: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """The outcome of trying to sign without naming a version.

    Attributes:
        finding: the finding, which is OK if the Vault refused the signature.
        request_id: the Vault's id of the call, if it signed.
    """

    finding: Finding
    request_id: str = ""


def examine_token(client: VaultClient) -> list[Finding]:
    """Return findings about the client's own token.

    Raises:
        BackendError: the Vault does not answer, or refuses the login.
    """
    vault = client.name
    try:
        data = client.call("GET", "auth/token/lookup-self", repeatable=True).body.get("data")
    except BackendDenied as error:
        return [Finding(Level.FAILURE, "privilege.too_narrow", vault, str(error))]
    data = data if isinstance(data, Mapping) else {}
    policies = sorted(names_of(data.get("policies")) | names_of(data.get("identity_policies")))
    held = ", ".join(policies) or "none"
    if "root" in policies:
        return [Finding(Level.FAILURE, "privilege.too_wide", vault, "the token is root's")]
    findings = [Finding(Level.OK, "token.policies", vault, held)]
    if "default" in policies:
        detail = "the token has the default policy too: set token_no_default_policy"
        findings.append(Finding(Level.NOTE, "token.policies", vault, detail))
    return [*findings, _life(vault, data), *_limits(client, data)]


def _limits(client: VaultClient, data: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the limits of a token: its uses and its maximum lifetime."""
    vault, uses = client.name, client.token_uses
    if uses:
        detail = (
            f"a token is good for {counted(uses, 'request')}, so there is a login for as many: set "
            "token_num_uses=0 for the role"
        )
        yield Finding(Level.WARNING, "token.num_uses", vault, detail)
    longest = number_of(data, "explicit_max_ttl")
    if longest:
        detail = f"a token ends after {longest} s, however often it is renewed: logged in again"
        yield Finding(Level.NOTE, "token.explicit_max_ttl", vault, detail)


def _life(vault: str, data: Mapping[str, Any]) -> Finding:
    ttl, whole = number_of(data, "ttl"), number_of(data, "creation_ttl")
    period = number_of(data, "period")
    shown = f"{ttl} s left" + (f", periodic ({period} s)" if period else "")
    if not ttl:
        return Finding(Level.WARNING, "token.ttl", vault, "the token never expires")
    if not data.get("renewable"):
        return Finding(Level.NOTE, "token.ttl", vault, f"{shown}, not renewable: logged in again")
    if whole and ttl < _LEAST_LIFE_SHARE * whole:
        return Finding(Level.WARNING, "token.ttl", vault, f"{shown} of {whole} s")
    return Finding(Level.OK, "token.ttl", vault, shown)


def examine_rights(
    client: VaultClient, role: VaultRole, places: Mapping[VaultPlace, bool]
) -> list[Finding]:
    """Return findings about missing and excess rights of the token.

    Args:
        client: a client logged in as that identity.
        role: the identity.
        places: see ``policy.grants_for``.

    Raises:
        BackendError: the Vault does not answer, or refuses.
    """
    grants = grants_for(role, places)
    forbidden = [path for place in places for path in _probes(place)]
    probes = {_example(grant.path) for grant in grants} | set(forbidden)
    held = held_rights(client, sorted(probes))
    narrow = [*_too_narrow(grants, held)]
    wide = [*_too_wide(grants, held)]
    findings = narrow + wide
    if not narrow:
        detail = f"all that {role} needs is permitted, on {counted(len(grants), 'path')}"
        findings.append(Finding(Level.OK, "privilege.sufficient", client.name, detail))
    if not wide:
        detail = f"nothing else is permitted, on {counted(len(probes), 'path')} asked about"
        findings.append(Finding(Level.OK, "privilege.least", client.name, detail))
    return findings


def held_rights(client: VaultClient, paths: Sequence[str]) -> dict[str, frozenset[str]]:
    """Return the capabilities of the client's token on each of ``paths``.

    Raises:
        BackendError: the Vault does not answer, or refuses.
    """
    reply = client.call("POST", _CAPABILITIES, {"paths": list(paths)}, repeatable=True)
    data = reply.body.get("data") or {}
    if reply.status != _OK_STATUS or not isinstance(data, Mapping):
        raise BackendDenied(f"the Vault {client.name!r} does not return the token's capabilities")
    return {path: names_of(data.get(path)) - {"deny"} for path in paths}


def _too_narrow(grants: Iterable[Grant], held: Mapping[str, frozenset[str]]) -> Iterator[Finding]:
    own = {grant.path for grant in OWN_TOKEN if "lookup" not in grant.path}
    for grant in grants:
        present = held[_example(grant.path)]
        missing = [each for each in grant.capabilities if each not in present]
        if missing and "root" not in present:
            level = Level.WARNING if grant.path in own else Level.FAILURE
            detail = f"the token lacks {', '.join(missing)}"
            yield Finding(level, "privilege.too_narrow", grant.path, detail)


def _too_wide(grants: Sequence[Grant], held: Mapping[str, frozenset[str]]) -> Iterator[Finding]:
    for path, present in held.items():
        more = present - _granted(grants, path)
        if more:
            detail = f"the token may {', '.join(sorted(more))}"
            yield Finding(Level.FAILURE, "privilege.too_wide", path, detail)


def _granted(grants: Sequence[Grant], path: str) -> frozenset[str]:
    """Return what the policy permits at ``path``; transit itself takes create for update."""
    found: set[str] = set()
    for grant in grants:
        whole = grant.path.removesuffix("*")
        fits = path.startswith(whole) if whole != grant.path else path == grant.path
        if fits:
            found |= set(grant.capabilities)
    return frozenset(found | ({"create"} if "/sign/" in path and found else set()))


def _example(path: str) -> str:
    return f"{path[:-1]}1" if path.endswith("*") else path


def _probes(place: VaultPlace) -> list[str]:
    """Return the paths on which excess rights would be harmful."""
    mount, name, stranger = place.mount, place.name, f"stranger-{secrets.token_hex(4)}"
    general = ["sys/mounts", "sys/policies/acl", f"sys/policies/acl/{stranger}"]
    general += ["auth/token/create", "sys/audit", f"sys/remount/{mount}"]
    if place.scheme == "kv":
        return [
            *general,
            f"{mount}/config",
            f"{mount}/data/{name}/1",
            f"{mount}/metadata/{name}",
            f"{mount}/metadata/{name}/1",
            f"{mount}/metadata/",
            f"{mount}/data/{stranger}/1",
            f"{mount}/metadata/{stranger}/",
            *(f"{mount}/{act}/{name}/1" for act in ("delete", "undelete", "destroy")),
        ]
    key = f"{mount}/keys/{name}"
    return [
        *general,
        key,
        f"{mount}/keys/",
        *(f"{key}/{act}" for act in ("rotate", "config", "trim", "soft-delete", "import_version")),
        *(f"{mount}/export/{kind}/{name}" for kind in ("signing-key", "encryption-key")),
        *(f"{mount}/{act}/{name}" for act in ("backup", "restore", "encrypt", "decrypt", "hmac")),
        f"{mount}/sign/{name}",
        *(f"{mount}/sign/{name}/{digest}" for digest in ("sha2-256", "sha2-512")),
        f"{mount}/sign/{stranger}",
        f"{mount}/keys/{stranger}",
        f"{mount}/export/signing-key/{stranger}",
    ]


def try_unpinned(client: VaultClient, place: VaultPlace) -> Attempt:
    """Try to sign without naming a version, which a policy should refuse."""
    path = f"{place.mount}/sign/{place.name}"
    try:
        body = {"input": b64encode(NO_TOKEN).decode()}
        reply = client.call("POST", path, body, is_probe=True)
    except BackendDenied:
        return Attempt(Finding(Level.OK, "privilege.pinned", path, "unpinned signing is refused"))
    if reply.status != _OK_STATUS:
        detail = f"unpinned signing was answered {reply.status}"
        return Attempt(Finding(Level.NOTE, "privilege.pinned", path, detail))
    detail = "the token signs without a version: require the parameter key_version"
    finding = Finding(Level.FAILURE, "privilege.too_wide", path, detail)
    return Attempt(finding, str(reply.body.get("request_id") or ""))


def try_configuring(client: VaultClient, place: VaultPlace) -> Finding:
    """Try a setting of the key that only its owner should touch; false, it changes nothing."""
    path = f"{place.mount}/keys/{place.name}/config"
    try:
        reply = client.call("POST", path, {"exportable": False}, is_probe=True)
    except BackendDenied:
        detail = "nothing but the floor for signing can be set"
        return Finding(Level.OK, "privilege.floors", path, detail)
    if reply.status >= _FIRST_ERROR_STATUS:
        detail = f"setting exportable was answered {reply.status}"
        return Finding(Level.NOTE, "privilege.floors", path, detail)
    detail = "the token may make the key exportable: restrict allowed_parameters"
    return Finding(Level.FAILURE, "privilege.too_wide", path, detail)


def examine_key(client: VaultClient, place: VaultPlace, *, followed: bool) -> list[Finding]:
    """Return findings about the settings of a transit key.

    Args:
        client: a client that may read the key.
        place: the key.
        followed: only the Vault and its operators make versions.

    Raises:
        BackendError: the Vault does not answer or refuses.
    """
    subject = f"{place.mount}/{place.name}"
    reply = client.call("GET", f"{place.mount}/keys/{place.name}", repeatable=True)
    data = reply.body.get("data")
    if reply.status != _OK_STATUS or not isinstance(data, Mapping):
        return [Finding(Level.FAILURE, "key.missing", subject, "there is no such key")]
    findings = [
        Finding(Level.FAILURE, "key.exportable", subject, f"{leak}: the private key can leave")
        for leak in LEAKS
        if data.get(leak)
    ]
    if not findings:
        findings.append(Finding(Level.OK, "key.exportable", subject, "the private key stays"))
    if data.get("deletion_allowed"):
        detail = "deletion_allowed is set: with the right to delete, all tokens can be made invalid"
        findings.append(Finding(Level.WARNING, "key.deletion_allowed", subject, detail))
    return [*findings, _rotation(subject, data, followed=followed)]


def _rotation(subject: str, data: Mapping[str, Any], *, followed: bool) -> Finding:
    check = "key.auto_rotate_period"
    period = number_of(data, "auto_rotate_period")
    if followed and not period:
        detail = "nothing rotates it on a schedule: set auto_rotate_period, or rotate it yourself"
        return Finding(Level.WARNING, check, subject, detail)
    if period and not followed:
        detail = f'the Vault also rotates it, every {period} s: use drive "follow"'
        return Finding(Level.WARNING, check, subject, detail)
    shown = f"the Vault rotates it every {period} s" if period else "rotated only by this server"
    return Finding(Level.OK, check, subject, shown)
