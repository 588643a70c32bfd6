"""An emergency revocation, rehearsed: every step that can be measured without effect is."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from authz_server.cli.keys.composition import KeyOperations
from authz_server.cli.keys.proof import Proof, prove, record_signature
from authz_server.cli.keys.vault_checks import server_backends
from authz_server.cli.output import timestamp
from authz_server.key_rings.models import KeyRing
from authz_server.key_rings.standby import find_next_key
from authz_server.key_rings.vaults import vault_access
from authz_server.settings import SettingsError
from keys.backends.vault.doctor import held_rights
from keys.backends.vault.places import VaultPlace, find_place
from keys.errors import KeysError, StoreUnavailable
from keys.lifecycle.plan import Plan
from keys.lifecycle.rules import find_active_key
from keys.signing_key import RingSnapshot, SigningKey

PURPOSE = "drill"


@dataclass(frozen=True, slots=True)
class Step:
    """One step: whether it would work, how long it took, and what it told."""

    name: str
    works: bool
    seconds: float
    detail: str = ""


@dataclass(slots=True)
class Rehearsal:
    """What came of it.

    Attributes:
        ring: Whose.
        active: The key that would be revoked.
        standby: The key that would sign instead.
        steps: In their order.
        doubts: What would make the real thing worse than it has to be.
    """

    ring: RingSnapshot
    active: SigningKey | None
    standby: SigningKey | None
    steps: list[Step] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """What would fail."""
        return [f"{step.name}: {step.detail}" for step in self.steps if not step.works]


class _Rehearser:
    def __init__(self, operations: KeyOperations, rehearsal: Rehearsal) -> None:
        self._operations = operations
        self._rehearsal = rehearsal

    def attempt(self, name: str, act: Callable[[], str]) -> None:
        """Do one step; what it raises is what would fail."""
        began = time.monotonic()
        try:
            detail, works = act(), True
        except (KeysError, SettingsError) as error:
            detail, works = str(error), False
        took = time.monotonic() - began
        self._rehearsal.steps.append(Step(name, works, took, detail))

    def read(self) -> str:
        """Read the rings, as every node does within its interval."""
        return f"{len(self._operations.rings())} rings"

    def plan(self, active: SigningKey) -> str:
        """Plan the revocation with the backend's view of the moment."""
        plan = self._operations.rotator.revoke(
            active.kid, actor=self._operations.actor, reason="drill", dry_run=True
        ).plan
        self._rehearsal.doubts.extend(_doubts_of(plan))
        outages = self._operations.observer.outages
        if outages:
            raise StoreUnavailable("; ".join(outages.values()))
        return f"{len(plan.changes)} changes" + (", then a fence" if plan.fence else "")

    def sign(self, standby: SigningKey) -> str:
        """Have the standby sign a fixed text as the server would."""
        operations, ring = self._operations, self._rehearsal.ring
        backend = server_backends(operations)[ring.backend_uri]
        proof: Proof = prove(backend, ring, standby)
        record_signature(
            operations.services,
            actor=operations.actor,
            purpose=PURPOSE,
            kid=standby.kid,
            request_id=proof.request_id,
        )
        return f"version {standby.version}, checked here"

    def fence(self, place: VaultPlace) -> str:
        """Log in as whoever would fence, and ask whether that is permitted."""
        from keys.backends.vault.session import VaultSession  # noqa: PLC0415 - it needs hvac

        operations = self._operations
        access = vault_access(operations.services.settings, place.vault, operations.identity)
        session = VaultSession(access, name=place.vault)
        path = f"{place.mount}/keys/{place.name}/config"
        try:
            rights = held_rights(session, [path])[path]
        finally:
            session.close()
        if not rights & {"update", "root"}:
            raise StoreUnavailable(f"the {operations.identity} may not write {path}")
        return f"as the {operations.identity}"

    def write(self) -> str:
        """Make the compare-and-set that a change begins with, and take it back."""
        ring = self._rehearsal.ring
        statement = (
            update(KeyRing)
            .where(KeyRing.name == ring.name, KeyRing.epoch == ring.epoch)
            .values(epoch=KeyRing.epoch + 1)
        )
        try:
            with Session(self._operations.services.database.engine) as session:
                written = session.execute(statement).rowcount  # type: ignore[attr-defined]
                session.rollback()
        except SQLAlchemyError as error:
            raise StoreUnavailable(f"the database cannot be written: {error}") from error
        if not written:
            raise StoreUnavailable("somebody changed the ring meanwhile; rehearse again")
        return "taken back"


def rehearse(operations: KeyOperations, ring: RingSnapshot) -> Rehearsal:
    """Rehearse the revocation of the key of ``ring`` that signs now; nothing is changed."""
    now = operations.now()
    active = find_active_key(ring.keys, now)
    rehearsal = Rehearsal(ring, active, find_next_key(ring, now))
    rehearser = _Rehearser(operations, rehearsal)
    rehearser.attempt("read the rings", rehearser.read)
    if active is None:
        rehearsal.doubts.append("no key signs, so there is nothing to revoke")
        return rehearsal
    rehearser.attempt("plan", lambda: rehearser.plan(active))
    standby = rehearsal.standby
    if standby is None:
        missing = "nothing can sign until a version is made: use --all-versions"
        rehearsal.steps.append(Step("the standby signs", works=False, seconds=0, detail=missing))
    else:
        rehearser.attempt("the standby signs", lambda: rehearser.sign(standby))
    place = find_place(ring.backend_uri)
    if place is not None and place.scheme == "transit":
        rehearser.attempt("the right to fence", lambda: rehearser.fence(place))
    rehearser.attempt("write, and take back", rehearser.write)
    rehearsal.doubts.extend(_doubts(operations, rehearsal))
    return rehearsal


def _doubts_of(plan: Plan) -> Iterator[str]:
    for change in plan.changes:
        if change.event == "emergency.exception":
            yield (
                f"version {change.key.version} was published at "
                f"{timestamp(change.key.published_at)}: some verifiers do not know it yet"
            )


def _doubts(operations: KeyOperations, rehearsal: Rehearsal) -> Iterator[str]:
    services, ring = operations.services, rehearsal.ring
    backend = operations.backends.get(ring.backend_uri)
    if backend is not None and not backend.caps.can_fence:
        seconds = services.settings.keys.snapshot_lifetime_seconds
        yield (
            "the backend cannot fence: whoever has the private key signs on, and a node that "
            f"reads nothing does for {seconds} s"
        )
    for node in services.key_store.load_nodes():
        if node.ring == ring.name and node.epoch_seen < ring.epoch:
            yield f"{node.node} has epoch {node.epoch_seen} of {ring.epoch}"


def describe_rehearsal(operations: KeyOperations, rehearsal: Rehearsal) -> dict[str, Any]:
    """Return what came of it as JSON, with what to expect of the real thing."""
    keys = operations.services.settings.keys
    changed = sum(step.seconds for step in rehearsal.steps if step.name in _ORDER)
    return {
        "ring": rehearsal.ring.name,
        "at": timestamp(operations.now()),
        "kid": rehearsal.active and rehearsal.active.kid,
        "standby": rehearsal.standby and rehearsal.standby.kid,
        "steps": [
            {
                "step": step.name,
                "works": step.works,
                "seconds": round(step.seconds, 4),
                "detail": step.detail,
            }
            for step in rehearsal.steps
        ],
        "expected": {
            "revoked_after_seconds": round(changed, 3),
            "every_node_refuses_after_seconds": round(changed + keys.refresh_interval_seconds, 3),
            "obedient_verifiers_refuse_after_seconds": round(
                changed + keys.refresh_interval_seconds + keys.jwks_maximum_age_seconds, 3
            ),
        },
        "would_fail": rehearsal.failures,
        "doubts": rehearsal.doubts,
    }


_ORDER = frozenset({"read the rings", "plan", "write, and take back"})
