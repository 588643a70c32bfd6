"""Check rings, durations, the clock and events without a Vault."""

from collections.abc import Iterable, Iterator

from authz_server.key_rings.backends import find_mismatch
from authz_server.key_rings.event_log import verify_event_chain
from authz_server.operations.keys.context import KeyContext
from authz_server.operations.keys.signature_check import check_signature
from keys.backends.vault.doctor import Finding, Level
from keys.backends.vault.policy import find_place
from keys.errors import BackendError
from keys.lifecycle.judgement import Judgement, Standing, judge_ring
from keys.lifecycle.rules import find_active_key
from keys.signing_key import RingSnapshot

#: Common verifiers cache a JWKS for this long, regardless of its max-age.
STUBBORN_CACHE_SECONDS = 86_400


def examine_installation(context: KeyContext) -> Iterator[Finding]:
    """Yield the findings that need no Vault."""
    yield _clock(context)
    rings = context.rings()
    held = {ring.name: ring for ring in rings}
    for name in context.settings.keys.rings:
        ring = held.pop(name, None)
        if ring is None or not ring.keys:
            detail = "it has no keys yet: run `authz-server keys init`"
            yield Finding(Level.FAILURE, "ring.keys", name, detail)
            continue
        yield from _ring(context, ring, rings)
        if find_place(ring.backend_uri) is None:
            yield from _signature(context, ring)
    for name, ring in held.items():
        if find_active_key(ring.keys, context.now()) and not ring.successor:
            detail = "it is not in the settings, so that no tick changes it"
            yield Finding(Level.NOTE, "ring.settings", name, detail)


def _clock(context: KeyContext) -> Finding:
    offset = context.clock_offset_seconds()
    tolerance = context.settings.keys.clock_tolerance_seconds
    level = Level.OK if abs(offset) <= tolerance else Level.FAILURE
    detail = f"{offset:+.3f} s from the database's; {tolerance} s are tolerated"
    return Finding(level, "clock.offset", "this machine", detail)


def _ring(
    context: KeyContext, ring: RingSnapshot, rings: Iterable[RingSnapshot]
) -> Iterator[Finding]:
    now = context.now()
    if mismatch := find_mismatch(context.settings, ring):
        yield Finding(Level.FAILURE, "ring.settings", ring.name, mismatch)
    yield from _prepublication(context, ring)
    yield _signing(ring, judge_ring(ring, rings, now))
    with context.services.database.reading() as session:
        broken = verify_event_chain(session, ring.name)
    if broken is None:
        yield Finding(Level.OK, "events.chain", ring.name, "the chain of events is complete")
    else:
        detail = f"event {broken}, or an event before it, was changed"
        yield Finding(Level.FAILURE, "events.chain", ring.name, detail)


_FINDINGS = {
    Standing.SIGNING: (Level.OK, "ring.standby"),
    Standing.UNPREPARED: (Level.WARNING, "ring.standby"),
    Standing.SUCCEEDED: (Level.OK, "ring.successor"),
    Standing.WAITING: (Level.OK, "ring.active_key"),
    Standing.IDLE: (Level.FAILURE, "ring.active_key"),
    Standing.EMPTY: (Level.FAILURE, "ring.keys"),
}


def _signing(ring: RingSnapshot, judgement: Judgement) -> Finding:
    level, check = _FINDINGS[judgement.standing]
    return Finding(level, check, ring.name, judgement.detail)


def _signature(context: KeyContext, ring: RingSnapshot) -> Iterator[Finding]:
    """Yield a finding about the signature of the active key."""
    key = find_active_key(ring.keys, context.now())
    backend = context.backends.get(ring.backend_uri)
    if key is None or backend is None:
        return
    try:
        signature = check_signature(backend, ring, key)
    except BackendError as error:
        yield Finding(Level.FAILURE, "ring.signature", ring.name, str(error))
        return
    detail = f"version {key.version} signed in {signature.seconds * 1000:.1f} ms, checked here"
    yield Finding(Level.OK, "ring.signature", ring.name, detail)


def _prepublication(context: KeyContext, ring: RingSnapshot) -> Iterator[Finding]:
    timing = context.settings.keys.timing()
    least, published = timing.minimum_prepublication_seconds, ring.prepublication_seconds
    published_text = f"keys are published {published} s before they sign"
    if published < least:
        detail = f"{published_text}; verifiers that obey max-age need {least} s"
        yield Finding(Level.FAILURE, "ring.prepublication", ring.name, detail)
    elif published < STUBBORN_CACHE_SECONDS:
        detail = f"{published_text}; many verifiers cache the JWKS for {STUBBORN_CACHE_SECONDS} s"
        yield Finding(Level.WARNING, "ring.prepublication", ring.name, detail)
    else:
        yield Finding(Level.OK, "ring.prepublication", ring.name, published_text)
