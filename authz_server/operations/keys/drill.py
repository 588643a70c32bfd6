"""Rehearse an emergency revocation without making changes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from authz_server.key_rings.models import KeyRing
from authz_server.key_rings.standby import find_next_key
from authz_server.key_rings.vaults import vault_access
from authz_server.operations.keys.context import KeyContext
from authz_server.operations.keys.signature_check import check_signature, record_signature
from authz_server.operations.keys.vault_checks import server_backends
from authz_server.settings import SettingsError
from keys.backend import Fences
from keys.backends.vault.doctor import held_rights
from keys.backends.vault.policy import VaultPlace, find_place
from keys.errors import KeysError, StoreUnavailable
from keys.lifecycle.orders import Revoke
from keys.lifecycle.plan import Plan
from keys.lifecycle.rules import find_active_key
from keys.plurals import counted
from keys.signing_key import RingSnapshot, SigningKey

PURPOSE = "drill"
#: The steps before a real revocation takes effect.
_BEFORE_IN_FORCE = frozenset({"read the rings", "plan", "write, and roll back"})


@dataclass(frozen=True, slots=True)
class DrillStep:
    """The result of one step, its duration and its detail."""

    step: str
    works: bool
    seconds: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedTimes:
    """The expected times of a real revocation, from the order."""

    revoked_after_seconds: float
    every_node_refuses_after_seconds: float
    obedient_verifiers_refuse_after_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """The result of a drill for one ring.

    Attributes:
        ring: the name of the ring.
        at: the present time.
        kid: the key that would be revoked.
        standby: the key that would sign instead.
        steps: the steps, in order.
        expected: the expected times of a real revocation.
        would_fail: the steps that would fail, as text.
        doubts: the conditions that would impair a real revocation, as text.
    """

    ring: str
    at: datetime
    kid: str | None
    standby: str | None
    steps: tuple[DrillStep, ...]
    expected: ExpectedTimes
    would_fail: tuple[str, ...]
    doubts: tuple[str, ...]


def run_drill(context: KeyContext, ring: RingSnapshot) -> Drill:
    """Rehearse the revocation of the active key of ``ring``, without a change."""
    now = context.now()
    active, standby = find_active_key(ring.keys, now), find_next_key(ring, now)
    rehearsal = _Rehearsal(context, ring)
    rehearsal.attempt("read the rings", rehearsal.read)
    if active is None:
        rehearsal.doubts.append("no key signs, so there is nothing to revoke")
    else:
        rehearsal.run(active, standby)
    changed = sum(each.seconds for each in rehearsal.steps if each.step in _BEFORE_IN_FORCE)
    return Drill(
        ring=ring.name,
        at=context.now(),
        kid=active.kid if active else None,
        standby=standby.kid if standby else None,
        steps=tuple(replace(each, seconds=round(each.seconds, 4)) for each in rehearsal.steps),
        expected=_expect(context, changed),
        would_fail=tuple(
            f"{each.step}: {each.detail}" for each in rehearsal.steps if not each.works
        ),
        doubts=tuple(rehearsal.doubts),
    )


def _expect(context: KeyContext, changed: float) -> ExpectedTimes:
    keys = context.settings.keys
    everywhere = changed + keys.refresh_interval_seconds
    return ExpectedTimes(
        revoked_after_seconds=round(changed, 3),
        every_node_refuses_after_seconds=round(everywhere, 3),
        obedient_verifiers_refuse_after_seconds=round(
            everywhere + keys.jwks_maximum_age_seconds, 3
        ),
    )


class _Rehearsal:
    def __init__(self, context: KeyContext, ring: RingSnapshot) -> None:
        self._context = context
        self._ring = ring
        self.steps: list[DrillStep] = []
        self.doubts: list[str] = []

    def run(self, active: SigningKey, standby: SigningKey | None) -> None:
        """Run the steps of a revocation of ``active``."""
        self.attempt("plan", lambda: self.plan(active))
        if standby is None:
            missing = "nothing can sign until a version is made: use --all-versions"
            self.steps.append(
                DrillStep("the standby signs", works=False, seconds=0, detail=missing)
            )
        else:
            self.attempt("the standby signs", lambda: self.sign(standby))
        place = find_place(self._ring.backend_uri)
        if place is not None and place.scheme == "transit":
            self.attempt("the right to fence", lambda: self.fence(place))
        self.attempt("write, and roll back", self.write)
        self.doubts.extend(_doubts(self._context, self._ring))

    def attempt(self, name: str, act: Callable[[], str]) -> None:
        """Run one step, and record its error as a failure."""
        began = time.monotonic()
        try:
            detail, works = act(), True
        except (KeysError, SettingsError) as error:
            detail, works = str(error), False
        self.steps.append(DrillStep(name, works, time.monotonic() - began, detail))

    def read(self) -> str:
        """Read the rings, as every node does at its interval."""
        return counted(len(self._context.rings()), "ring")

    def plan(self, active: SigningKey) -> str:
        """Plan the revocation with the present state of the backend."""
        order = Revoke(active.kid, "drill")
        plan = self._context.rotator.apply(order, actor=self._context.actor, dry_run=True).plan
        self.doubts.extend(_doubts_of(plan))
        outages = self._context.notices.outages
        if outages:
            raise StoreUnavailable("; ".join(outages.values()))
        return counted(len(plan.changes), "change") + (", then a fence" if plan.fence else "")

    def sign(self, standby: SigningKey) -> str:
        """Sign a fixed text with the standby, logged in as the server."""
        backend = server_backends(self._context)[self._ring.backend_uri]
        signature = check_signature(backend, self._ring, standby)
        record_signature(
            self._context, purpose=PURPOSE, kid=standby.kid, request_id=signature.request_id
        )
        return f"version {standby.version}, checked here"

    def fence(self, place: VaultPlace) -> str:
        """Log in as the identity that would fence, and check its rights."""
        from keys.backends.vault.client import VaultClient  # noqa: PLC0415 - for a Vault alone

        identity = self._context.identity
        access = vault_access(self._context.settings, place.vault, identity)
        client = VaultClient(access, name=place.vault)
        path = f"{place.mount}/keys/{place.name}/config"
        try:
            rights = held_rights(client, [path])[path]
        finally:
            client.close()
        if not rights & {"update", "root"}:
            raise StoreUnavailable(f"the {identity} may not write {path}")
        return f"as the {identity}"

    def write(self) -> str:
        """Make the compare-and-set of a change, and roll it back."""
        ring = self._ring
        statement = (
            update(KeyRing)
            .where(KeyRing.name == ring.name, KeyRing.epoch == ring.epoch)
            .values(epoch=KeyRing.epoch + 1)
        )
        try:
            with Session(self._context.services.database.engine) as session:
                written = session.execute(statement).rowcount  # type: ignore[attr-defined]
                session.rollback()
        except SQLAlchemyError as error:
            raise StoreUnavailable(f"the database cannot be written: {error}") from error
        if not written:
            raise StoreUnavailable("the ring was changed meanwhile; repeat the drill")
        return "rolled back"


def _doubts_of(plan: Plan) -> Iterator[str]:
    for change in plan.changes:
        if change.event == "emergency.exception":
            yield (
                f"version {change.key.version} was published at "
                f"{change.key.published_at:%Y-%m-%dT%H:%M:%SZ}: some verifiers do not know it yet"
            )


def _doubts(context: KeyContext, ring: RingSnapshot) -> Iterator[str]:
    backend = context.backends.get(ring.backend_uri)
    if backend is not None and not isinstance(backend, Fences):
        seconds = context.settings.keys.snapshot_lifetime_seconds
        yield (
            "the backend cannot fence: a stolen private key still signs, and a node that cannot "
            f"read the change signs for {seconds} s"
        )
    for node in context.services.key_store.load_nodes():
        if node.ring == ring.name and node.epoch_seen < ring.epoch:
            yield f"{node.node} has epoch {node.epoch_seen} of {ring.epoch}"
