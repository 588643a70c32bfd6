"""Whatever clocks, operators, backends, outages and rotators do, the invariants hold.

A model of the verifiers stands beside the ring: it remembers when each key was first seen in the
JWKS and every token that was signed. What it concludes is compared with what the ring does.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from keys.errors import BackendError, NoActiveKeyError, OrderRefusedError
from keys.lifecycle.invariants import TRANSITIONS
from keys.lifecycle.orders import Activate, Destroy, Freeze, Prune, Revoke, Rotate, Taint, Unfreeze
from keys.lifecycle.rules import PUBLIC_STATES
from keys.lifecycle.state import ALL_PERMISSIONS, NO_PERMISSIONS, RotationMode
from keys.signing_key import KeyState
from support.rotation import DAY, L, P, RingFixture, T
from support.searches import inputs

STEPS = st.sampled_from([1, 5, 59, 121, 900, L, L + 200, DAY, P, T // 2, T])


@dataclass(frozen=True)
class Signed:
    kid: str
    expires_at: datetime


class Lifecycle(RuleBasedStateMachine):
    @initialize(mode=st.sampled_from(RotationMode), fences=st.booleans())
    def begin(self, mode, fences):
        follow = mode is RotationMode.EXTERNAL or not fences
        self.world = RingFixture(
            mode=mode, permissions=NO_PERMISSIONS if follow else ALL_PERMISSIONS
        )
        self.rotators = [self.world.rotator, self.world.make_rotator()]
        self.nodes = [self.world.make_node(), self.world.make_node()]
        self.first_seen: dict[str, datetime] = {}
        self.was: dict[str, KeyState] = {}
        self.signed: set[Signed] = set()
        self.look()

    def look(self):
        """See the JWKS as a verifier would, and remember."""
        for key in self.world.ring.keys:
            if key.state in PUBLIC_STATES:
                self.first_seen.setdefault(key.kid, self.world.clock())

    # -------------------------------------------------------------------------- what may happen

    @rule(seconds=STEPS)
    def time_passes(self, seconds):
        self.world.clock.advance(seconds)

    @rule(which=st.integers(0, 1))
    def a_rotator_ticks(self, which):
        self.rotators[which].tick("ring", actor="test")

    @rule(which=st.integers(0, 1))
    def a_node_reads(self, which):
        node = self.nodes[which]
        node.refresh()
        self.world.store.report_node(f"node-{which}", node.epochs(), 0.0)

    @rule(which=st.integers(0, 1))
    def a_node_signs(self, which):
        node = self.nodes[which]
        with suppress(BackendError, NoActiveKeyError):
            token = node.sign("ring", b"{}", typ="at+jwt", lifetime_seconds=L)
            self.require_known_to_verifiers(token.kid)
            now = self.world.clock()
            self.signed.add(Signed(token.kid, now + timedelta(seconds=L)))

    def require_known_to_verifiers(self, kid):
        """Invariant 1, by the verifiers' own observation."""
        key = next(key for key in self.world.ring.keys if key.kid == kid)
        known_for = self.world.clock() - self.first_seen[kid]
        minimum = timedelta(seconds=self.world.timing.minimum_prepublication_seconds)
        assert known_for >= minimum or key.reason, f"{kid} was known for {known_for} only"

    @rule()
    def an_operator_rotates(self):
        with suppress(OrderRefusedError, BackendError):
            self.world.apply(Rotate("ring", "order"))

    @rule()
    def a_version_appears_at_the_backend(self):
        with suppress(BackendError):
            self.world.backend.create("ring", "ES256")

    @rule(late=st.integers(0, 1))
    def readings_lag(self, late):
        self.world.backend.late = late

    @rule(away=st.booleans())
    def the_backend_comes_and_goes(self, away):
        self.world.backend.away = away

    @rule(back=st.integers(0, 1))
    def a_signing_floor_is_raised_at_the_backend(self, back):
        floors = self.world.backend.sign_floor
        newest = max(key.version for key in self.world.ring.keys)
        floors["ring"] = max(floors.get("ring", 1), newest - back)

    @rule(version=st.integers(1, 3), emergency=st.booleans())
    def an_operator_activates(self, version, emergency):
        with suppress(OrderRefusedError, BackendError):
            self.world.apply(Activate(self.pick(version).kid, "order", emergency=emergency))

    @rule(version=st.integers(1, 3))
    def an_operator_taints(self, version):
        with suppress(OrderRefusedError):
            self.world.apply(Taint(self.pick(version).kid, "doubts"))

    @rule(version=st.integers(1, 3), all_versions=st.booleans())
    def an_operator_revokes(self, version, all_versions):
        with suppress(OrderRefusedError):
            self.world.apply(Revoke(self.pick(version).kid, "leak", all_versions=all_versions))

    @rule(frozen=st.booleans())
    def an_operator_freezes(self, frozen):
        with suppress(OrderRefusedError):
            self.world.apply((Freeze if frozen else Unfreeze)("ring", "audit"))

    @rule()
    def an_operator_destroys(self):
        with suppress(OrderRefusedError, BackendError):
            self.world.apply(Prune("ring"))
            self.world.apply(Destroy("ring", "tidy"))

    def pick(self, version):
        """Return one of the newest keys."""
        return self.world.ring.keys[-version:][0]

    # ------------------------------------------------------------------------- what always holds

    @invariant()
    def tokens_in_force_are_verified(self):
        """Invariant 2: from a fresh JWKS, unless the key was revoked."""
        self.look()
        now = self.world.clock()
        self.signed = {token for token in self.signed if token.expires_at > now}
        states = {key.kid: key.state for key in self.world.ring.keys}
        for token in self.signed:
            state = states[token.kid]
            assert state in PUBLIC_STATES or self.was_revoked(token.kid), (token, state)

    def was_revoked(self, kid):
        key = next(key for key in self.world.ring.keys if key.kid == kid)
        last = [
            change for change in self.world.store.events if getattr(change, "key", None) == key
        ][-1]
        return key.state is KeyState.REVOKED and last.reason != "tainted, drained"

    @invariant()
    def one_key_at_most_is_active(self):
        """Invariant 4."""
        states = self.world.states()
        assert states.count(KeyState.ACTIVE) <= 1
        assert len({key.kid for key in self.world.ring.keys}) == len(states)

    @invariant()
    def nothing_taken_back_returns(self):
        """Invariant 7."""
        for key in self.world.ring.keys:
            was = self.was.get(key.kid, KeyState.PUBLISHED)
            assert key.state in reachable(was), f"{key.kid}: {was} to {key.state}"
            self.was[key.kid] = key.state

    @invariant()
    def every_key_has_its_events(self):
        """Invariant 10: no key without an event, none in the end in a state that no event names."""
        recorded = {
            change.key.kid: change.key.state
            for change in self.world.store.events
            if hasattr(change, "key")
        }
        assert recorded == {key.kid: key.state for key in self.world.ring.keys}


def reachable(state):
    found, todo = {state}, [state]
    while todo:
        for following in TRANSITIONS[todo.pop()] - found:
            found.add(following)
            todo.append(following)
    return found


Lifecycle.TestCase.settings = settings(
    max_examples=inputs(120),
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
TestLifecycle = Lifecycle.TestCase
