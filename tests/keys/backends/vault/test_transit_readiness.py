"""Readiness of a ring in a real transit engine: what is wrong is seen, proofs are recorded."""

import time
from contextlib import contextmanager

import pytest

from keys.backends.vault.transit import TransitBackend
from keys.ring import KeyRings
from keys.signer import PROOF_INTERVAL_SECONDS
from support.rotation import RingFixture
from support.vault_parts import open_client, token_access

POLICY = """
path "{mount}/keys/*" {{ capabilities = ["read", "create", "update"] }}
path "{mount}/sign/*" {{ capabilities = ["{sign}"] }}
path "auth/token/lookup-self" {{ capabilities = ["read"] }}
"""


class Server:
    """The rings of a process whose key is in transit, and what it signed for no token."""

    def __init__(self, bao_mount) -> None:
        self.admin, self.mount = bao_mount.admin, bao_mount.mount
        self.permit_signing()
        token = self.admin.create_token([self.mount])
        self.access = token_access(bao_mount.server.address, token=token)
        self.proofs: list[tuple[str, str]] = []

    def permit_signing(self, *, permitted: bool = True) -> None:
        sign = "update" if permitted else "deny"
        self.admin.write_policy(self.mount, POLICY.format(mount=self.mount, sign=sign))

    @contextmanager
    def opened(self):
        with open_client(self.access) as client:
            world = RingFixture(
                make_backend=lambda _: TransitBackend(client, self.mount, "ring", "ring")
            )
            rings = KeyRings(
                world.store,
                {world.definition.backend_uri: world.backend},
                world.clock,
                "ring",
                on_proof=lambda kid, request_id: self.proofs.append((kid, request_id)),
            )
            rings.refresh()
            yield rings

    def ask(self, rings) -> str:
        time.sleep(PROOF_INTERVAL_SECONDS)
        return rings.why_not_ready("ring")


@pytest.fixture
def server(bao_mount):
    return Server(bao_mount)


def test_a_ring_that_can_sign_is_ready_and_its_proof_can_be_accounted_for(server):
    with server.opened() as rings:
        assert [server.ask(rings) for _ in range(3)] == ["", "", ""]
    ((kid, request_id),) = server.proofs
    assert kid == rings.snapshots()[0].keys[0].kid
    assert request_id


def test_a_policy_that_no_longer_permits_signing_is_a_reason_until_it_does(server):
    with server.opened() as rings:
        server.permit_signing(permitted=False)
        for _ in range(2):
            assert "its policy does not permit this" in server.ask(rings)
        server.permit_signing()
        assert server.ask(rings) == ""
    assert len(server.proofs) == 1


FAULTS = {
    "switched off": lambda admin, mount: admin.soft_delete_key("ring", mount=mount),
    "floor": lambda admin, mount: admin.configure_key(
        "ring", mount=mount, min_encryption_version=2
    ),
    "unmounted": lambda admin, mount: admin.disable_engine(mount),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_key_that_was_changed_in_the_vault_is_a_reason(server, fault):
    with server.opened() as rings:
        assert server.ask(rings) == ""
        FAULTS[fault](server.admin, server.mount)
        assert server.ask(rings).startswith("keys: ")
    assert len(server.proofs) == 1, "seen without a signature"
