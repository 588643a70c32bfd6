"""The displayed names of events."""

_NAMES = {
    "key.published": "published",
    "key.scheduled": "activation planned",
    "key.held": "activation put off",
    "key.activated": "signs",
    "key.retired": "stopped signing",
    "key.fenced": "fenced at the backend",
    "key.removed": "left the JWKS",
    "key.destroyed": "private key destroyed",
    "key.tainted": "tainted",
    "key.revoked": "revoked",
    "emergency.exception": "signs early, in an emergency",
    "key.revocation_timed": "revocation timed",
    "cut_off.recorded": "tokens revoked",
    "ring.configured": "durations changed",
    "ring.version_ordered": "next version ordered",
    "ring.version_made": "next version made",
    "ring.version_failed": "next version failed",
    "ring.succeeded": "succeeded by another ring",
    "ring.cautious": "JWKS kept shorter",
    "ring.frozen": "frozen",
    "ring.unfrozen": "unfrozen",
}


def event_in_words(event: str) -> str:
    """Return the displayed name of an event."""
    return _NAMES.get(event, event.replace(".", " ").replace("_", " "))
