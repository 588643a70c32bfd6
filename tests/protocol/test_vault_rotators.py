"""Several rotators at once, and one that dies: one version is made, and none is lost."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from threading import Barrier
from typing import Any

import pytest

from authz_server.assembly.operator import operator_services
from authz_server.key_rings.backends import open_backends, ring_rules
from authz_server.key_rings.vaults import vault_accesses
from keys.errors import OrderRefusedError
from keys.lifecycle.orders import Rotate
from keys.lifecycle.rotator import Rotator
from keys.signing_key import KeyState
from support.clock import FakeClock
from support.databases import copied_database
from support.openbao import DevServer
from support.received_events import ReceivedEvents
from support.source_tree import ROOT
from support.vault_side import await_that
from support.vault_site import VaultFixture

#: On each database, half of them by time and half by order. Every later one reads their versions.
ROUNDS = int(os.environ.get("ROTATOR_ROUNDS", "16"))
ROTATORS = 3
SETTINGS = {
    "rings": {"remote": {"prepublication_seconds": 10, "rotation_interval_seconds": 100}},
    "keys": {"jwks_maximum_age_seconds": 5},
}
# As `authz-server`, but the process is gone the moment that the Vault has made the version.
DYING = """
import os, sys
from keys.backends.vault.transit import TransitBackend
made = TransitBackend.create
def make_and_die(backend, ring, alg):
    made(backend, ring, alg)
    os._exit(9)
TransitBackend.create = make_and_die
from authz_server.__main__ import main
sys.exit(main())
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def make_site(openbao: DevServer, request, tmp_path):
    """A function of the number of servers that gives a site."""

    @contextmanager
    def make(nodes: int) -> Iterator[VaultFixture]:
        with (
            copied_database(request, request.param, tmp_path) as url,
            VaultFixture(tmp_path, url, openbao, nodes=nodes, **SETTINGS) as site,
        ):
            yield site

    return make


def open_rotator(site: VaultFixture, stack: ExitStack, clock: FakeClock) -> Rotator:
    """Return a rotator with connections of its own, as each command has them."""
    services = stack.enter_context(operator_services(site.settings))
    vaults = vault_accesses(site.settings, "rotator")
    # A receiver of its own: those that share one share the session with the Vault too.
    received = ReceivedEvents()
    backends = open_backends(
        site.settings, services.backend_registry, services.database, clock, vaults, received
    )
    stack.callback(backends[site.backend]._client.close)  # noqa: SLF001 - commands end with it open
    return Rotator(
        store=services.key_store,
        backends=backends,
        rules=ring_rules(site.settings, "order"),
        clock=clock,
        timing=site.settings.keys.timing(),
    )


def all_at_once(acts: list[Callable[[], Any]]) -> list[Any]:
    """Run the acts together: one that begins after another has ended is a further order."""
    start = Barrier(len(acts))

    def run(act: Callable[[], Any]) -> Any:
        start.wait(10)
        return act()

    with ThreadPoolExecutor(len(acts)) as pool:
        return [each.result() for each in [pool.submit(run, act) for act in acts]]


@pytest.mark.timeout(180)
def test_rotators_at_once_make_one_version(make_site):
    """Case G77."""
    with make_site(0) as site, ExitStack() as stack:
        clock = FakeClock(site.ring("remote").keys[0].activate_at)
        rotators = [open_rotator(site, stack, clock) for _ in range(ROTATORS)]
        rotators[0].tick("remote", actor="test")
        refused = count()

        def order(rotator: Rotator) -> None:
            try:
                rotator.apply(Rotate("remote", "all at once"), actor="test")
            except OrderRefusedError:
                next(refused)

        for number in range(ROUNDS):
            by_order = number % 2
            clock.advance(20 if by_order else 100)
            if by_order:
                # The key of the round before is known by now, and signs.
                rotators[0].tick("remote", actor="test")
                all_at_once([lambda each=each: order(each) for each in rotators])
            else:
                ticks = [lambda each=each: each.tick("remote", actor="test") for each in rotators]
                all_at_once(ticks)
                # A busy Vault may refuse the one that was to make it; the next tick makes it then.
                rotators[0].tick("remote", actor="test")
            assert site.latest_version("remote") == number + 3, number
        keys = site.ring("remote").keys
        assert [key.version for key in keys] == list(range(1, ROUNDS + 3))
        assert len({key.kid for key in keys}) == len(keys)
        assert sum(key.state is KeyState.ACTIVE for key in keys) == 1
        assert next(refused) == ROUNDS // 2 * (ROTATORS - 1)


@pytest.mark.timeout(120)
def test_a_version_whose_maker_died_is_adopted_by_whoever_comes_next(make_site):
    """Case G77."""
    with make_site(1) as site:
        died = subprocess.run(
            [sys.executable, "-c", DYING, "keys", "rotate", "--config", site.settings_path],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (died.returncode, died.stdout) == (9, ""), died.stderr
        assert site.latest_version("remote") == 3
        # The server has no power to make a version, but it adopts those that are there.
        await_that(lambda: len(site.ring("remote").keys) == 3, "it is adopted unaided")
        kid = site.ring("remote").keys[2].kid
        await_that(lambda: kid in site.published_kids(), "it is published")
        await_that(lambda: site.signing_version("remote") == 2, "the standby signs", 30)
        assert site.ask().status == 200
        assert site.command("keys", "tick").returncode == 0
        assert site.latest_version("remote") == 3


@pytest.mark.timeout(120)
def test_a_rotation_that_fails_changes_nothing(make_site):
    """Case G79."""
    with make_site(1) as site:
        before = [(key.kid, key.state) for key in site.ring("remote").keys]
        site.proxy.refuse()
        rotated, ticked = (site.command("keys", verb) for verb in ("rotate", "tick"))
        site.proxy.heal()
        assert rotated.returncode != 0
        assert "Connection" in rotated.stderr
        assert "Traceback" not in rotated.stderr + ticked.stderr
        assert [(key.kid, key.state) for key in site.ring("remote").keys] == before
        assert site.latest_version("remote") == 2
        await_that(lambda: site.ask().status == 200, "the key signs on")
        again = site.command("keys", "rotate")
        assert again.returncode == 0, again.stderr
        assert site.latest_version("remote") == 3
