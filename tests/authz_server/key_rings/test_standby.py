"""Verifiers know the next key before it signs."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from authz_server.database.orm import open_database
from authz_server.key_rings.consumers import ReaderName, write_readers
from authz_server.key_rings.standby import StandbyReadiness, find_next_key
from authz_server.settings import DatabaseSettings, Secret
from authz_server.settings.keys import KeySettings
from keys.errors import StoreUnavailable
from keys.lifecycle.state import Readiness
from keys.memory import empty_ring
from keys.signing_key import KeyState, RingDefinition
from keys.testing import MOMENT, KeyStoreContract

EMPTY = empty_ring(RingDefinition(name="es256", alg="ES256", backend_uri="sql://"))
HOUR = timedelta(hours=1)


def ring(*states: KeyState):
    """Return a ring of keys in these states, published an hour apart, the newest just now."""
    keys = []
    for version, state in enumerate(states, start=1):
        published_at = MOMENT - HOUR * (len(states) - version)
        active = state in {KeyState.ACTIVE, KeyState.RETIRED}
        keys.append(
            KeyStoreContract()
            .change(
                version,
                state,
                published_at=published_at,
                activate_at=published_at if active else None,
            )
            .key
        )
    return replace(EMPTY, keys=tuple(keys))


@pytest.fixture
def database(database_url):
    database = open_database(DatabaseSettings(url=database_url))
    yield database
    database.close()


def settings(gate: str) -> KeySettings:
    return KeySettings(key_encryption_key=Secret(bytes(32)), activation_gate=gate)


def assess(database, snapshot, gate: str = "advisory", at=MOMENT) -> Readiness:
    return StandbyReadiness(database, settings(gate), lambda: at)(snapshot)


def note(database, **fetched) -> None:
    with database.transaction() as session:
        write_readers(session, {ReaderName(name, ""): at for name, at in fetched.items()})


@pytest.mark.parametrize(
    ("states", "version"),
    [
        ((), None),
        ((KeyState.ACTIVE,), None),
        ((KeyState.ACTIVE, KeyState.PUBLISHED), 2),
        ((KeyState.ACTIVE, KeyState.PUBLISHED, KeyState.PUBLISHED), 2),
        ((KeyState.RETIRED, KeyState.ACTIVE, KeyState.TAINTED, KeyState.PUBLISHED), 4),
        ((KeyState.PUBLISHED, KeyState.ACTIVE), None),
        ((KeyState.REVOKED, KeyState.PUBLISHED), 2),
    ],
)
def test_the_next_key_is_the_lowest_published_above_the_active(states, version):
    found = find_next_key(ring(*states), MOMENT)
    assert (found.version if found else None) == version


def test_who_has_not_fetched_the_next_key_is_named(database):
    snapshot = ring(KeyState.ACTIVE, KeyState.PUBLISHED)
    later = MOMENT + HOUR
    note(database, knows=later, new=MOMENT + timedelta(seconds=15))
    note(database, too_soon=MOMENT + timedelta(seconds=14), old=MOMENT - HOUR)
    note(database, gone=later - timedelta(days=8))
    assert assess(database, snapshot, at=later).missing == (
        "old (unknown network)",
        "too_soon (unknown network)",
    )
    assert assess(database, snapshot, at=later).binding is False
    assert assess(database, snapshot, "binding", at=later).binding is True


def test_where_two_keys_wait_the_earlier_one_counts(database):
    """It is that one which signs next; the newest, which is the standby, nobody can know yet."""
    note(database, reader=MOMENT - HOUR / 2)
    snapshot = ring(KeyState.ACTIVE, KeyState.PUBLISHED, KeyState.PUBLISHED)
    assert assess(database, snapshot, "binding").missing == ()


def test_where_no_key_waits_nobody_is_missing(database):
    note(database, reader=MOMENT - HOUR)
    assert assess(database, ring(KeyState.ACTIVE), "binding") == Readiness(binding=True)


def test_readers_that_cannot_be_read_are_an_outage_of_the_store(database):
    with database.transaction() as session:
        session.execute(text("DROP TABLE jwks_reader"))
    with pytest.raises(StoreUnavailable):
        assess(database, ring(KeyState.ACTIVE, KeyState.PUBLISHED))


def test_nodes_may_hand_out_the_old_set_for_as_long_as_they_take_to_read():
    assert settings("advisory").timing().notice_seconds == 15
