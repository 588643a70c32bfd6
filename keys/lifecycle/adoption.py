"""Follow a ring's backend in a plan: adopt versions, follow floors, report missing versions."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from keys.backend import BackendView, Version
from keys.errors import BackendBroken, KeysError
from keys.events import Alarm
from keys.jose.jwk import load_public_key, thumbprint
from keys.lifecycle.plan import Draft
from keys.lifecycle.rules import LIVE_STATES, PUBLIC_STATES
from keys.signing_key import KeyState, SigningKey


def adopt(draft: Draft, versions: Sequence[Version]) -> None:
    """Publish every version that is newer than all known ones."""
    require_known_keys(draft, versions)
    newest = max(draft.keys, default=0)
    for version in versions:
        number = int(version.ref)
        if number not in draft.keys and number > newest:
            problem = find_obstacle(version, draft.state.ring.alg, _places(draft))
            if problem:
                draft.alarms.append(Alarm("key.not_adopted", draft.state.ring.name, problem))
            else:
                _publish(draft, version, thumbprint(version.jwk))


def _places(draft: Draft) -> dict[str, str]:
    """Return the place of each known key, by its id: of every ring, in every state."""
    others = (key for ring in draft.state.others for key in ring.keys)
    return {key.kid: name_version(key) for key in (*others, *draft.keys.values())}


def name_version(key: SigningKey) -> str:
    """Return the place of a key, for messages."""
    return f"version {key.version} of {key.ring!r}"


def find_obstacle(version: Version, alg: str, places: Mapping[str, str]) -> str:
    """Return why a ring cannot use a version as a further key; empty if it can.

    Args:
        version: the version at the backend.
        alg: the algorithm of the ring.
        places: the place of each known key, by its id.
    """
    problem = _find_problem(version.jwk, alg)
    if problem:
        return f"version {version.ref} at its backend: {problem}"
    place = places.get(thumbprint(version.jwk))
    return "" if place is None else f"version {version.ref} at its backend is the key of {place}"


def _find_problem(jwk: Mapping[str, str], alg: str) -> str:
    try:
        load_public_key(jwk, alg)
    except KeysError as error:
        return str(error)
    return ""


def withdraw_unusable(draft: Draft) -> None:
    """Withdraw the waiting keys that cannot sign: earlier builds adopted every version.

    A build that reads no key of the ring does not know its algorithm, and withdraws none.
    """
    ring, now = draft.state.ring, draft.state.now
    live = draft.in_states(LIVE_STATES)
    problems = {key.version: _find_problem(key.public_jwk, ring.alg) for key in live}
    if all(problems.values()):
        return
    for key in draft.pending():
        if problem := problems[key.version]:
            why = f"it cannot sign: {problem}"
            stop = {"revoked_at": now, "stopped_at": now}
            draft.change(key, "key.revoked", why, state=KeyState.REVOKED, reason=why, **stop)
            detail = f"{name_version(key)} is withdrawn: {why}"
            draft.alarms.append(Alarm("key.not_adopted", ring.name, detail))


def require_known_keys(draft: Draft, versions: Sequence[Version]) -> None:
    """Raise BackendBroken if a known version is another key at the backend."""
    for version in versions:
        known = draft.keys.get(int(version.ref))
        if known is not None and known.kid != thumbprint(version.jwk):
            raise BackendBroken(
                f"version {version.ref} of {draft.state.ring.name!r} is another key "
                f"than {known.kid}"
            )


def _publish(draft: Draft, version: Version, kid: str) -> None:
    ring, now = draft.state.ring, draft.state.now
    key = SigningKey(
        ring=ring.name,
        version=int(version.ref),
        kid=kid,
        alg=ring.alg,
        public_jwk=version.jwk,
        state=KeyState.PUBLISHED,
        created_at=version.created_at,
        published_at=now,
    )
    draft.change(key, "key.published", "new version at the backend")


def report_absence(draft: Draft, view: BackendView) -> None:
    """Raise an alarm for a live version that is missing at the backend, without revoking it.

    A listing may be outdated, incomplete or wrong. Only the backend's explicit floors revoke.
    """
    state = draft.state
    name = state.ring.name
    if view.disabled:
        draft.alarms.append(Alarm("backend.disabled", name, "the key is disabled there"))
        return
    if not view.versions:
        if draft.active() is not None:
            draft.alarms.append(Alarm("backend.disabled", name, "the key is no longer there"))
        return
    shown = {int(version.ref) for version in view.versions}
    floor = int(view.verify_floor or 0) if state.fences else 0
    # A node of the backend may lag behind the one that made the version.
    lag = timedelta(seconds=state.timing.snapshot_lifetime_seconds)
    for key in draft.in_states(LIVE_STATES):
        known = key.published_at is None or state.now - key.published_at >= lag
        if known and key.version >= floor and key.version not in shown:
            detail = f"version {key.version} of {name} is missing at its backend"
            draft.alarms.append(Alarm("key.absent", key.kid, detail))


def follow_floors(draft: Draft, view: BackendView) -> None:
    """Follow the backend's floors upward; a lower floor is an outdated read or has no effect."""
    state = draft.state
    now = state.now
    verify_floor, sign_floor = int(view.verify_floor or 0), int(view.sign_floor or 0)
    signed_before = draft.active()
    for key in draft.in_states(PUBLIC_STATES):
        if key.version < verify_floor:
            draft.change(
                key,
                "key.revoked",
                f"the backend verifies nothing below version {verify_floor}",
                state=KeyState.REVOKED,
                revoked_at=now,
                stopped_at=key.stopped_at or now,
            )
            draft.alarms.append(Alarm("floor.changed_externally", key.kid, "verification floor"))
    active = draft.active()
    if signed_before is None or (active is not None and active.version >= sign_floor):
        return
    if active is not None:
        draft.alarms.append(Alarm("floor.changed_externally", active.kid, "signing floor"))
    floor = max(sign_floor, verify_floor)
    _take_over(draft, floor, f"the backend signs nothing below version {floor}")


def _take_over(draft: Draft, floor: int, why: str) -> None:
    """Activate the lowest version that the backend permits at once."""
    permitted = [
        key for key in draft.in_states(frozenset({KeyState.PUBLISHED})) if key.version >= floor
    ]
    if permitted:
        activate_now(draft, permitted[0], why)


def activate_now(draft: Draft, key: SigningKey, why: str) -> SigningKey:
    """Activate ``key`` now; if verifiers may not know it, record the exception with its reason."""
    now = draft.state.now
    if draft.prepublished_at(key) > now:
        return draft.change(key, "emergency.exception", why, activate_at=now, reason=why)
    return draft.change(key, "key.scheduled", why, activate_at=now)
