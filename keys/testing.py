"""Contract test suites for key backends and key stores.

A test class inherits a contract and provides its fixture::

    class TestMyBackend(KeyBackendContract):
        @pytest.fixture
        def backend(self) -> KeyBackend: ...
"""
# ruff: noqa: S101 - these are tests
# ruff: noqa: D102 - the name of a test is its sentence

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from keys.backend import Creates, Destroys, Fences, KeyBackend, Version
from keys.errors import BackendDenied, VersionUnusable
from keys.jose.algorithms import get_algorithm
from keys.jose.jwk import PUBLIC_MEMBERS, load_public_key, thumbprint
from keys.jose.signatures import make_verifier, signature_size
from keys.memory import empty_ring
from keys.signing_key import KeyState, RingDefinition, RingSnapshot, SigningKey
from keys.store import KeyChange, KeyStore, RingChange

#: A fixed moment with microseconds, which a store must not lose.
MOMENT = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


class KeyBackendContract:
    """The contract of ``keys.backend.KeyBackend``; needs the fixture ``backend``, without keys.

    For a backend that cannot create keys, the fixture must provide version 1 of ``ring``.
    """

    ring = "contract-ring"
    alg = "ES256"

    def require_version(self, backend: KeyBackend) -> Version:
        """Return a version to test with."""
        if isinstance(backend, Creates):
            return backend.create(self.ring, self.alg)
        return backend.describe_versions(self.ring).versions[0]

    def test_it_makes_keys_for_at_least_one_algorithm_known_here(self, backend: KeyBackend) -> None:
        assert backend.scheme
        assert backend.caps.algs
        assert all(get_algorithm(name) for name in backend.caps.algs)

    def test_an_unknown_ring_has_no_versions(self, backend: KeyBackend) -> None:
        view = backend.describe_versions("no-such-ring")
        assert view.versions == ()
        assert view.sign_floor is None
        assert view.verify_floor is None

    def test_versions_count_up_and_are_all_shown(self, backend: KeyBackend) -> None:
        if not isinstance(backend, Creates):
            return
        made = [backend.create(self.ring, self.alg) for _ in range(3)]
        assert [version.ref for version in made] == ["1", "2", "3"]
        view = backend.describe_versions(self.ring)
        assert list(view.versions) == made
        floor = "1" if isinstance(backend, Fences) else None
        assert (view.sign_floor, view.verify_floor, view.disabled) == (floor, floor, False)
        assert len({thumbprint(version.jwk) for version in made}) == len(made)

    def test_only_public_members_are_shown(self, backend: KeyBackend) -> None:
        """Case G74."""
        jwk = self.require_version(backend).jwk
        assert set(jwk) == set(PUBLIC_MEMBERS[jwk["kty"]])

    def test_signatures_verify_with_the_public_key_shown(self, backend: KeyBackend) -> None:
        algs = sorted(backend.caps.algs) if isinstance(backend, Creates) else [self.alg]
        for alg in algs:
            if isinstance(backend, Creates):
                ring = f"{self.ring}-{alg}"
                version = backend.create(ring, alg)
            else:
                ring, version = self.ring, self.require_version(backend)
            public, algorithm = load_public_key(version.jwk, alg), get_algorithm(alg)
            inputs = [b"one", b"", b"three" * 1000]
            signatures = backend.sign(ring, version.ref, alg, inputs)
            assert len(signatures) == len(inputs)
            for data, signature in zip(inputs, signatures, strict=True):
                assert len(signature) == signature_size(public, algorithm)
                make_verifier(public, algorithm)(signature, data)

    def test_many_signatures_all_have_the_exact_size(self, backend: KeyBackend) -> None:
        version = self.require_version(backend)
        public, algorithm = load_public_key(version.jwk, self.alg), get_algorithm(self.alg)
        inputs = [str(number).encode() for number in range(300)]
        signatures = backend.sign(self.ring, version.ref, self.alg, inputs)
        for data, signature in zip(inputs, signatures, strict=True):
            assert len(signature) == signature_size(public, algorithm)
            make_verifier(public, algorithm)(signature, data)

    def test_the_version_asked_for_signs_and_no_other(self, backend: KeyBackend) -> None:
        first = self.require_version(backend)
        if isinstance(backend, Creates):
            backend.create(self.ring, self.alg)
        (signature,) = backend.sign(self.ring, first.ref, self.alg, [b"data"])
        public, algorithm = load_public_key(first.jwk, self.alg), get_algorithm(self.alg)
        make_verifier(public, algorithm)(signature, b"data")

    def test_nothing_to_sign_gives_no_signatures(self, backend: KeyBackend) -> None:
        version = self.require_version(backend)
        assert backend.sign(self.ring, version.ref, self.alg, []) == []

    @pytest.mark.parametrize("ref", ["0", "99", "-1", "", "latest", "1 OR 1=1", "../1"])
    def test_a_version_that_is_not_held_is_unusable(self, backend: KeyBackend, ref: str) -> None:
        self.require_version(backend)
        with pytest.raises(VersionUnusable):
            backend.sign(self.ring, ref, self.alg, [b"data"])

    def test_another_algorithm_than_the_versions_is_unusable(self, backend: KeyBackend) -> None:
        """Case D38."""
        version = self.require_version(backend)
        backend.sign(self.ring, version.ref, self.alg, [b"data"])
        for alg in ("ES384", "RS256", "none"):
            with pytest.raises(VersionUnusable):
                backend.sign(self.ring, version.ref, alg, [b"data"])

    def test_rings_are_apart(self, backend: KeyBackend) -> None:
        version = self.require_version(backend)
        with pytest.raises(VersionUnusable):
            backend.sign("another-ring", version.ref, self.alg, [b"data"])

    def test_a_fence_stops_older_versions_where_the_backend_has_fences(
        self, backend: KeyBackend
    ) -> None:
        if not (isinstance(backend, Fences) and isinstance(backend, Creates)):
            return
        first = backend.create(self.ring, self.alg)
        second = backend.create(self.ring, self.alg)
        backend.fence(self.ring, second.ref)
        assert backend.describe_versions(self.ring).sign_floor == second.ref
        assert len(backend.sign(self.ring, second.ref, self.alg, [b"data"])) == 1
        with pytest.raises(VersionUnusable):
            backend.sign(self.ring, first.ref, self.alg, [b"data"])

    def test_a_destroyed_version_is_gone_for_good(self, backend: KeyBackend) -> None:
        if not (isinstance(backend, Destroys) and isinstance(backend, Creates)):
            return
        first = backend.create(self.ring, self.alg)
        backend.sign(self.ring, first.ref, self.alg, [b"data"])
        second = backend.create(self.ring, self.alg)
        backend.destroy(self.ring, second.ref)
        view = backend.describe_versions(self.ring)
        floor = second.ref if isinstance(backend, Fences) else None
        assert (view.verify_floor, view.versions) == (floor, (second,))
        with pytest.raises(VersionUnusable):
            backend.sign(self.ring, first.ref, self.alg, [b"data"])
        assert backend.create(self.ring, self.alg).ref == "3"

    def test_never_everything_is_destroyed(self, backend: KeyBackend) -> None:
        version = self.require_version(backend)
        if isinstance(backend, Destroys):
            with pytest.raises((VersionUnusable, BackendDenied)):
                backend.destroy(self.ring, "99")
        assert backend.describe_versions(self.ring).versions == (version,)

    def test_two_makers_at_once_never_share_a_number(self, backend: KeyBackend) -> None:
        if not isinstance(backend, Creates):
            return
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda _: backend.create(self.ring, self.alg), range(8)))
        assert sorted(int(version.ref) for version in made) == list(range(1, 9))
        assert len({thumbprint(version.jwk) for version in made}) == len(made)

    def test_a_version_that_was_forgotten_signs_again(self, backend: KeyBackend) -> None:
        version = self.require_version(backend)
        public, algorithm = load_public_key(version.jwk, self.alg), get_algorithm(self.alg)
        assert not backend.forget(self.ring, "99")
        for _ in range(2):
            (signature,) = backend.sign(self.ring, version.ref, self.alg, [b"data"])
            make_verifier(public, algorithm)(signature, b"data")
            backend.forget(self.ring, version.ref)
        assert not backend.forget(self.ring, version.ref)

    def test_it_says_that_it_is_usable(self, backend: KeyBackend) -> None:
        self.require_version(backend)
        health = backend.health()
        assert health.usable
        assert health.detail


class KeyStoreContract:
    """The contract of ``keys.store.KeyStore``; needs the fixture ``store``, empty."""

    definition = RingDefinition(name="contract-ring", alg="ES256", backend_uri="sql://")

    def change(self, version: int, state: KeyState, **changed: object) -> KeyChange:
        """Return a change of key ``version`` of the ring."""
        key = SigningKey(
            ring=self.definition.name,
            version=version,
            kid=f"kid-{version}",
            alg="ES256",
            public_jwk={"kty": "EC", "crv": "P-256", "x": "x", "y": str(version)},
            state=state,
            created_at=MOMENT,
        )
        key = replace(key, **changed)  # type: ignore[arg-type]
        return KeyChange(
            key=key, event=f"key.{state}", actor="contract", reason="a test", at=MOMENT
        )

    def ring_change(self, ring: RingSnapshot, **changed: object) -> RingChange:
        """Return a change of the ring itself."""
        ring = replace(ring, **changed)  # type: ignore[arg-type]
        return RingChange(
            ring=ring, event="ring.changed", actor="contract", reason="a test", at=MOMENT
        )

    def get_ring(self, store: KeyStore) -> RingSnapshot:
        """Return the only ring."""
        (ring,) = store.load_rings(MOMENT)
        return ring

    def test_an_empty_store_has_no_rings(self, store: KeyStore) -> None:
        assert store.load_rings(MOMENT) == ()

    def test_a_new_ring_has_what_was_defined_and_no_keys(self, store: KeyStore) -> None:
        store.add_ring(self.definition)
        assert self.get_ring(store) == empty_ring(self.definition)
        assert self.get_ring(store).loaded_at == MOMENT

    def test_a_ring_of_that_name_is_left_alone(self, store: KeyStore) -> None:
        store.add_ring(self.definition)
        store.change_ring(self.definition.name, 0, [self.change(1, KeyState.ACTIVE)])
        store.add_ring(replace(self.definition, alg="RS256"))
        assert (self.get_ring(store).alg, self.get_ring(store).epoch) == ("ES256", 1)

    def test_every_member_of_a_key_is_kept(self, store: KeyStore) -> None:
        store.add_ring(self.definition)
        times = dict.fromkeys(
            (
                "published_at",
                "activate_at",
                "stopped_at",
                "fenced_at",
                "remove_after",
                "revoked_at",
            ),
            MOMENT,
        )
        full = self.change(1, KeyState.REVOKED, reason="leaked", **times)
        bare = self.change(2, KeyState.PUBLISHED)
        assert store.change_ring(self.definition.name, 0, [bare, full])
        assert self.get_ring(store).keys == (full.key, bare.key)

    def test_a_change_against_an_old_epoch_writes_nothing(self, store: KeyStore) -> None:
        store.add_ring(self.definition)
        assert store.change_ring(self.definition.name, 0, [self.change(1, KeyState.ACTIVE)])
        before = self.get_ring(store)
        assert not store.change_ring(self.definition.name, 0, [self.change(1, KeyState.REVOKED)])
        assert not store.change_ring(self.definition.name, 2, [self.change(1, KeyState.REVOKED)])
        assert self.get_ring(store) == before

    def test_a_ring_that_is_not_there_cannot_change(self, store: KeyStore) -> None:
        assert not store.change_ring("no-such-ring", 0, [])

    def test_the_active_key_can_be_replaced_in_one_change(self, store: KeyStore) -> None:
        store.add_ring(self.definition)
        name = self.definition.name
        assert store.change_ring(name, 0, [self.change(1, KeyState.ACTIVE)])
        swap = [self.change(2, KeyState.ACTIVE), self.change(1, KeyState.RETIRED)]
        assert store.change_ring(name, 1, swap)
        states = [key.state for key in self.get_ring(store).keys]
        assert states == [KeyState.RETIRED, KeyState.ACTIVE]

    def test_two_keys_are_never_recorded_as_active(self, store: KeyStore) -> None:
        store.add_ring(self.definition)
        name = self.definition.name
        assert store.change_ring(name, 0, [self.change(1, KeyState.ACTIVE)])
        assert not store.change_ring(name, 1, [self.change(2, KeyState.ACTIVE)])
        assert [key.version for key in self.get_ring(store).keys] == [1]
        assert self.get_ring(store).epoch == 1

    def test_of_many_at_once_one_wins(self, store: KeyStore) -> None:
        store.add_ring(self.definition)
        name = self.definition.name
        with ThreadPoolExecutor(4) as pool:
            attempts = [
                pool.submit(store.change_ring, name, 0, [self.change(n, KeyState.PUBLISHED)])
                for n in range(1, 9)
            ]
        assert sum(attempt.result() for attempt in attempts) == 1
        assert (self.get_ring(store).epoch, len(self.get_ring(store).keys)) == (1, 1)

    def test_every_member_of_a_ring_that_may_change_is_kept(self, store: KeyStore) -> None:
        store.add_ring(self.definition)
        changes = {
            "frozen": True,
            "successor": "another-ring",
            "succeeded_at": MOMENT,
            "cautious_until": MOMENT,
            "claimed_until": MOMENT,
            "prepublication_seconds": 17,
            "rotation_interval_seconds": 18,
        }
        wanted = self.ring_change(self.get_ring(store), **changes)
        assert store.change_ring(self.definition.name, 0, [], wanted)
        assert self.get_ring(store) == replace(wanted.ring, epoch=1, changed_at=MOMENT)
        emptied = dict.fromkeys(
            ("successor", "succeeded_at", "cautious_until", "claimed_until"), None
        )
        back = self.ring_change(self.get_ring(store), frozen=False, **emptied)
        assert store.change_ring(self.definition.name, 1, [], back)
        assert self.get_ring(store) == replace(back.ring, epoch=2, changed_at=MOMENT)

    def test_what_makes_a_ring_what_it_is_never_changes(self, store: KeyStore) -> None:
        store.add_ring(self.definition)
        wanted = self.ring_change(
            self.get_ring(store),
            name="renamed",
            alg="RS256",
            backend_uri="kv://elsewhere/key",
            maximum_lifetime_seconds=1,
            epoch=17,
            keys=(self.change(7, KeyState.ACTIVE).key,),
        )
        assert store.change_ring(self.definition.name, 0, [], wanted)
        assert self.get_ring(store) == replace(
            empty_ring(self.definition), epoch=1, changed_at=MOMENT
        )

    def test_keys_and_ring_change_together_or_not_at_all(self, store: KeyStore) -> None:
        store.add_ring(self.definition)
        name, wanted = self.definition.name, self.ring_change(self.get_ring(store), frozen=True)
        two_active = [self.change(number, KeyState.ACTIVE) for number in (1, 2)]
        assert not store.change_ring(name, 0, two_active, wanted)
        assert not store.change_ring(name, 1, [self.change(1, KeyState.ACTIVE)], wanted)
        assert self.get_ring(store) == empty_ring(self.definition)
        assert store.change_ring(name, 0, [self.change(1, KeyState.ACTIVE)], wanted)
        ring = self.get_ring(store)
        assert (ring.frozen, ring.epoch, len(ring.keys)) == (True, 1, 1)

    def test_one_key_may_have_two_events_in_one_change(self, store: KeyStore) -> None:
        store.add_ring(self.definition)
        change = self.change(1, KeyState.ACTIVE)
        twice = [replace(change, event="key.published"), change]
        assert store.change_ring(self.definition.name, 0, twice)
        assert self.get_ring(store).keys == (change.key,)

    def test_the_latest_report_of_each_node_and_ring_is_kept(self, store: KeyStore) -> None:
        assert store.load_nodes() == ()
        store.report_node("beta/1", {"first": 3, "second": 4}, 0.0)
        store.report_node("alpha/2", {"second": 2}, -0.5)
        store.report_node("beta/1", {"second": 5}, 0.25)
        store.report_node("beta/1", {}, 0.0)
        reports = store.load_nodes()
        assert [(each.node, each.ring, each.epoch_seen) for each in reports] == [
            ("alpha/2", "second", 2),
            ("beta/1", "first", 3),
            ("beta/1", "second", 5),
        ]
        assert [each.clock_offset_seconds for each in reports] == [-0.5, 0.0, 0.25]
        assert reports[1].seen_at <= reports[0].seen_at <= reports[2].seen_at
        assert all(each.seen_at.utcoffset() == timedelta(0) for each in reports)

    def test_the_clock_of_a_store_on_this_machine_is_this_machines(self, store: KeyStore) -> None:
        assert abs(store.clock_offset_seconds()) < 1
