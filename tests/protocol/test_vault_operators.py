"""People act in the Vault directly: what they do there is followed, never fought.

Every ring of these tests has a key of its own and is only followed; all acts happen at once.
"""

import time
from collections.abc import Iterator

import pytest

from support.databases import copied_database
from support.openbao import DevServer
from support.vault_side import await_that
from support.vault_site import VaultFixture

# The shortest that the settings allow: verifiers keep the JWKS for a second.
PREPUBLICATION_SECONDS = 5
ACTS = ("rotated", "sign-floor", "verify-floor", "deleted", "by-timer")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(openbao: DevServer, request, tmp_path_factory) -> Iterator[VaultFixture]:
    directory = tmp_path_factory.mktemp("site")
    rings = {
        name: {
            "backend": f"transit://{{mount}}/{name}",
            "drive": "follow",
            "prepublication_seconds": PREPUBLICATION_SECONDS,
        }
        for name in ACTS
    }
    keys = {"jwks_maximum_age_seconds": 1}
    with copied_database(request, request.param, directory) as url:
        site = VaultFixture(
            *(directory, url, openbao),
            rings=rings,
            resource_servers={"switched": "deleted"},
            keys=keys,
        )
        site.before_first_keys = lambda: make_keys(site)
        with site:
            yield site


def make_keys(site: VaultFixture) -> None:
    """As the security team does: the keys are there, two versions each, before anybody asks."""
    for name in ACTS:
        site.admin.create_key(name, mount=site.mount)
        site.admin.rotate_key(name, mount=site.mount)


def states(site: VaultFixture, ring: str) -> list[str]:
    return [key.state.value for key in site.ring(ring).keys]


def alarms(site: VaultFixture) -> list[tuple[str, str]]:
    return [
        (record["alarm"], record["subject"])
        for record in site.records()
        if record["event"] == "key.alarm"
    ]


def test_a_version_made_by_people_is_a_rotation(site: VaultFixture):
    """Case G75."""
    # The standby has been known long enough by now, so that it may take over at once.
    published_at = time.monotonic()
    assert site.signing_version("rotated") == 1
    await_that(lambda: time.monotonic() > published_at + PREPUBLICATION_SECONDS, "it is known")
    assert site.admin.rotate_key("rotated", mount=site.mount) == 3
    await_that(lambda: site.signing_version("rotated") == 2, "the standby signs")
    kids = {key.version: key.kid for key in site.ring("rotated").keys}
    assert set(kids) == {1, 2, 3}
    await_that(lambda: set(kids.values()) <= set(site.published_kids()), "all are published")
    # The server has no power to fence; nor would it, in a ring that others drive.
    assert site.admin.read_key("rotated", mount=site.mount)["min_encryption_version"] == 0


def test_a_raised_sign_floor_is_an_order_to_change_over(site: VaultFixture):
    """Case G83."""
    site.admin.configure_key("sign-floor", mount=site.mount, min_encryption_version=2)
    await_that(
        lambda: site.signing_version("sign-floor") == 2, "the lowest permitted version signs"
    )
    first, second = site.ring("sign-floor").keys
    await_that(lambda: states(site, "sign-floor") == ["retired", "active"], "it is recorded")
    assert first.kid in site.published_kids()
    assert ("floor.changed_externally", first.kid) in alarms(site)
    assert second.activate_at is not None


def test_a_raised_verify_floor_revokes(site: VaultFixture):
    """Case G83."""
    # In one call: the floor for verifying must not pass a floor for signing that is set.
    floors = {"min_encryption_version": 2, "min_decryption_version": 2}
    site.admin.configure_key("verify-floor", mount=site.mount, **floors)
    await_that(lambda: states(site, "verify-floor") == ["revoked", "active"], "it is followed")
    first, second = site.ring("verify-floor").keys
    await_that(lambda: first.kid not in site.published_kids(), "it left the JWKS")
    assert second.kid in site.published_kids()
    # Lowering the floor again is no pardon.
    site.admin.configure_key("verify-floor", mount=site.mount, min_decryption_version=1)
    time.sleep(2)
    assert states(site, "verify-floor") == ["revoked", "active"]


def test_a_soft_deleted_key_signs_nothing_and_alarms(site: VaultFixture):
    """Case G79."""
    site.admin.soft_delete_key("deleted", mount=site.mount)
    await_that(lambda: ("backend.disabled", "deleted") in alarms(site), "an alarm is raised")
    answer = site.ask("switched/read")
    assert (answer.status, "Retry-After" in answer.headers) == (503, True)
    assert states(site, "deleted") == ["active", "published"]
    site.admin.restore_key("deleted", mount=site.mount)
    await_that(lambda: site.ask("switched/read").status == 200, "it signs again")


def test_a_timer_in_the_vault_is_left_alone(site: VaultFixture):
    site.admin.configure_key("by-timer", mount=site.mount, auto_rotate_period="1h")
    run = site.command("keys", "tick", "by-timer", "--json")
    assert run.returncode == 0, run.stderr
    shown = site.admin.read_key("by-timer", mount=site.mount)
    assert (shown["auto_rotate_period"], shown["latest_version"]) == (3600, 2)
