"""Make the first keys of rings that have none."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from authz_server.assembly import Services
from authz_server.key_rings.backends import ring_definition
from authz_server.operations.keys.context import KeyContext, require_steady_clock
from authz_server.settings import SettingsError
from keys.backend import KeyBackend
from keys.lifecycle.first_key import FIRST_VERSIONS, create_first_key
from keys.plurals import counted

# Backends whose private keys this server encrypts.
_ENCRYPTED = frozenset({"sql", "file"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstKeysResult:
    """The result for one ring; ``sentence`` describes it."""

    command: str = "init"
    ring: str
    algorithm: str
    backend: str
    at: datetime
    dry_run: bool
    written: bool
    sentence: str


def create_first_keys(
    context: KeyContext, ring: str | None = None, *, dry_run: bool = False
) -> tuple[FirstKeysResult, ...]:
    """Make the first keys of one ring, or of every ring of the settings; safe to repeat.

    The first key signs at once. If verifiers already cache the JWKS for other rings, it signs after
    its publication.

    Args:
        context: the context of the operation.
        ring: a ring of the settings; None: every ring.
        dry_run: only plan.

    Raises:
        KeysError: a ring exists with another algorithm or backend, or its backend fails.
        SettingsError: existing keys are encrypted under another key-encryption key.
    """
    require_opened_keys(context.backends)
    in_use = any(each.keys for each in context.rings())
    names = [ring] if ring is not None else [*context.settings.keys.rings]
    return tuple(_create(context, name, in_use=in_use, dry_run=dry_run) for name in names)


def create_missing_keys(services: Services, *, actor: str) -> dict[str, bool]:
    """Make the first keys of every ring of the settings, as the server; safe to repeat.

    Args:
        services: the parts of the server.
        actor: the recorded actor.

    Returns:
        the rings by name; True if their keys were made now.

    Raises:
        KeysError: a ring exists with another algorithm or backend, or its backend fails.
        SettingsError: existing keys are encrypted under another key-encryption key.
    """
    settings = services.settings
    require_opened_keys(services.key_backends)
    in_use = any(ring.keys for ring in services.key_store.load_rings(services.clock()))
    made = {
        name: create_first_key(
            services.key_store,
            services.key_backends[ring.backend],
            ring_definition(settings, name),
            clock=services.clock,
            actor=actor,
            in_use=in_use,
            may_create=ring.drive != "follow",
        )
        for name, ring in settings.keys.rings.items()
    }
    services.key_rings.refresh()
    return made


def require_opened_keys(backends: Mapping[str, KeyBackend]) -> None:
    """Require that the key-encryption key opens the private keys that it encrypts.

    Raises:
        SettingsError: it does not.
    """
    for uri, backend in backends.items():
        if uri.partition(":")[0] not in _ENCRYPTED:
            continue
        health = backend.health()
        if not health.usable:
            raise SettingsError(
                f"the private keys in {uri} cannot be opened: {health.detail}",
                key="keys.key_encryption_key",
                remedy="Bring back the key under which they were encrypted: a further node has "
                "the settings and secrets of the first.",
            )


def _create(context: KeyContext, name: str, *, in_use: bool, dry_run: bool) -> FirstKeysResult:
    services = context.services
    definition = ring_definition(services.settings, name)
    may_create = services.settings.keys.rings[name].drive != "follow"
    backend = context.backends[definition.backend_uri]
    has_keys = any(ring.keys for ring in context.rings() if ring.name == name)
    written, sentence = False, "has keys already."
    if not has_keys and dry_run:
        versions = len(backend.describe_versions(name).versions)
        made = max(FIRST_VERSIONS - versions, 0) if may_create else 0
        to_make, there = counted(made, "key is", "keys are"), counted(versions, "is", "are")
        sentence = f"{to_make} to be made at {definition.backend_uri}; {there} there."
    elif not has_keys:
        written = create_first_key(
            services.key_store,
            backend,
            definition,
            clock=services.clock,
            actor=context.actor,
            in_use=in_use,
            may_create=may_create,
            clock_tolerance_seconds=services.settings.keys.clock_tolerance_seconds,
            notify=context.notify,
            require_steady=partial(require_steady_clock, services),
        )
        sentence = "has its first keys." if written else sentence
    return FirstKeysResult(
        ring=name,
        algorithm=definition.alg,
        backend=definition.backend_uri,
        at=context.now(),
        dry_run=dry_run,
        written=written,
        sentence=sentence,
    )
