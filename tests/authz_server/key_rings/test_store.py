"""The key rings' tables: both contracts, one event per change, nothing in clear."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.serialization import load_der_private_key
from sqlalchemy import delete, event, select, text, update
from sqlalchemy.exc import IntegrityError

from authz_server.database.change_feed import Change, Revision
from authz_server.database.orm import open_database
from authz_server.key_rings.models import KeyEvent, KeyRing, SigningKeyRow
from authz_server.key_rings.private_keys import EncryptedPrivateKey, SqlEncryptedKeyStorage
from authz_server.key_rings.store import SqlKeyStore
from authz_server.settings import DatabaseSettings
from keys.backends.local.envelope import Envelope
from keys.backends.local.sql import LocalBackend
from keys.errors import BackendBroken, BackendUnavailable, StoreUnavailable
from keys.lifecycle.first_key import create_first_key
from keys.ring import KeyRings
from keys.signing_key import KeyState, RingDefinition
from keys.store import KeyChange
from keys.testing import MOMENT, KeyBackendContract, KeyStoreContract
from support.clock import FakeClock

KEY_ENCRYPTION_KEY = bytes(range(32))
DEFINITION = RingDefinition(name="es256", alg="ES256", backend_uri="sql://")


@pytest.fixture
def database(database_url):
    database = open_database(DatabaseSettings(url=database_url))
    yield database
    database.engine.dispose()


@pytest.fixture
def store(database):
    return SqlKeyStore(database.transaction, database.reading)


@pytest.fixture
def storage(database):
    return SqlEncryptedKeyStorage(database.transaction, database.reading)


@pytest.fixture
def backend(storage):
    return LocalBackend(storage, KEY_ENCRYPTION_KEY, FakeClock())


class TestSqlKeyStore(KeyStoreContract):
    pass


class TestSqlKeyStoreWithOneWayIn(KeyStoreContract):
    @pytest.fixture
    def store(self, database):
        return SqlKeyStore(database.transaction)


class TestLocalBackendInSql(KeyBackendContract):
    pass


def create(store, backend, definition=DEFINITION):
    return create_first_key(store, backend, definition, clock=FakeClock(), actor="operator:ada")


def open_rings(store, backend):
    rings = KeyRings(store, {"sql://": backend}, FakeClock(), "es256")
    rings.refresh()
    return rings


def test_a_ring_from_its_first_key_to_a_verified_token(store, backend, storage):
    assert create(store, backend)
    assert not create(store, backend)
    signed = open_rings(store, backend).sign("es256", b"{}", typ="at+jwt", lifetime_seconds=60)
    elsewhere = open_rings(store, LocalBackend(storage, KEY_ENCRYPTION_KEY, FakeClock()))
    assert elsewhere.verify(signed.token).ring == "es256"
    again = elsewhere.sign("es256", b"{}", typ="at+jwt", lifetime_seconds=60)
    assert again.kid == signed.kid


def test_every_change_has_one_event_and_is_fed_to_other_processes(store, backend, database):
    create(store, backend)
    with database.reading() as session:
        events = session.scalars(select(KeyEvent).order_by(KeyEvent.id)).all()
        keys = session.scalars(select(SigningKeyRow).order_by(SigningKeyRow.version)).all()
        changes = session.scalars(select(Change).where(Change.kind == "key")).all()
        recorded = [(event.kid, event.event, event.actor, event.epoch) for event in events]
    assert sorted(recorded) == sorted(
        [
            (keys[0].kid, "key.activated", "operator:ada", 1),
            (keys[1].kid, "key.published", "operator:ada", 1),
        ]
    )
    assert all(event.reason and event.at == FakeClock()() for event in events)
    assert [change.subject for change in changes] == ["es256"]


def test_a_change_that_cannot_be_recorded_is_not_made(store, backend, database):
    create(store, backend)
    before = store.load_rings(MOMENT)
    change = KeyStoreContract().change(1, KeyState.REVOKED)
    key = replace(before[0].keys[0], state=KeyState.REVOKED)
    with database.transaction() as session:
        session.execute(delete(Revision))
    with pytest.raises(StoreUnavailable):
        store.change_ring("es256", 1, [replace(change, key=key)])
    assert store.load_rings(MOMENT) == before
    with database.reading() as session:
        assert len(session.scalars(select(KeyEvent)).all()) == 2


def test_of_many_first_keys_at_once_one_wins(store, backend):
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: create(store, backend), range(6)))
    assert sum(outcomes) == 1
    (ring,) = store.load_rings(MOMENT)
    assert [key.state for key in ring.keys].count(KeyState.ACTIVE) == 1


@pytest.mark.parametrize("alg", ["ES256", "RS256", "EdDSA"])
def test_no_private_key_is_in_the_database_in_clear(store, backend, storage, database, alg):
    """Case G85."""
    create(store, backend, replace(DEFINITION, alg=alg))
    dump = b""
    with database.engine.connect() as connection:
        for table in ("key_ring", "signing_key", "key_event", "encrypted_private_key"):
            for row in connection.execute(text(f"SELECT * FROM {table}")):  # noqa: S608 - fixed names
                dump += b"".join(
                    value if isinstance(value, bytes) else str(value).encode() for value in row
                )
    for key in storage.load("es256"):
        plain = Envelope(KEY_ENCRYPTION_KEY).open(
            key.envelope, ring="es256", version=key.version, kid=key.kid
        )
        assert load_der_private_key(plain, password=None)
        assert key.envelope in dump
        assert plain[-32:] not in dump
        assert plain not in dump
    assert b'"d"' not in dump


def test_envelopes_swapped_in_the_database_do_not_open(store, backend, storage, database):
    create(store, backend)
    first, second = storage.load("es256")
    with database.transaction() as session:
        for version, envelope in ((1, second.envelope), (2, first.envelope)):
            session.execute(
                update(EncryptedPrivateKey)
                .where(EncryptedPrivateKey.version == version)
                .values(envelope=envelope)
            )
    fresh = LocalBackend(storage, KEY_ENCRYPTION_KEY, FakeClock())
    for ref in ("1", "2"):
        with pytest.raises(BackendBroken, match="was changed"):
            fresh.sign("es256", ref, "ES256", [b"data"])


def test_the_database_itself_refuses_two_active_keys(store, backend, database):
    create(store, backend)
    with pytest.raises(IntegrityError), database.transaction() as session:
        session.execute(update(SigningKeyRow).values(state="active"))


def test_the_database_itself_refuses_a_version_or_a_kid_twice(store, backend):
    create(store, backend)
    (ring,) = store.load_rings(MOMENT)
    contract = KeyStoreContract()
    for members in ({"version": 2, "kid": "new"}, {"version": 3, "kid": ring.keys[0].kid}):
        key = replace(ring.keys[1], **members)
        change = replace(contract.change(1, KeyState.PUBLISHED), key=key)
        written = store.change_ring("es256", 1, [change])
        # A known kid is that key's own row, and its version is then what changes.
        assert written is (key.kid == ring.keys[0].kid)


def test_a_state_from_a_later_version_stops_the_reading_and_nothing_else(
    store, backend, database, caplog
):
    create(store, backend)
    rings = open_rings(store, backend)
    with database.transaction() as session:
        session.execute(update(SigningKeyRow).values(state="melted"))
    with pytest.raises(StoreUnavailable, match="this version cannot read"):
        store.load_rings(MOMENT)
    rings.refresh()
    assert "this version cannot read" in caplog.text
    assert rings.sign("es256", b"{}", typ="at+jwt", lifetime_seconds=60)


def test_a_database_without_the_tables_is_one_clear_error(store, storage, database):
    with database.transaction() as session:
        for table in (KeyEvent, SigningKeyRow, KeyRing, EncryptedPrivateKey):
            session.execute(text(f"DROP TABLE {table.__tablename__}"))
    attempts = [
        lambda: store.load_rings(MOMENT),
        lambda: store.add_ring(DEFINITION),
        lambda: store.change_ring("es256", 0, []),
    ]
    for attempt in attempts:
        with pytest.raises(StoreUnavailable, match="the database cannot answer"):
            attempt()
    backend = LocalBackend(storage, KEY_ENCRYPTION_KEY, FakeClock())
    for attempt in (
        lambda: backend.describe_versions("es256"),
        lambda: backend.create("es256", "ES256"),
        lambda: storage.delete_below("es256", 2),
    ):
        with pytest.raises(BackendUnavailable) as caught:
            attempt()
        assert caught.value.retry_after == 5
    assert not backend.health().usable


def test_keys_that_change_during_a_reading_never_come_with_the_epoch_after_it(
    store, backend, database, database_url
):
    """Case G77. An epoch newer than the keys beside it would let a change pass on old rows."""
    create(store, backend)
    elsewhere = open_database(DatabaseSettings(url=database_url))
    other = SqlKeyStore(elsewhere.transaction, elsewhere.reading)
    (before,) = other.load_rings(MOMENT)
    revoked = replace(before.keys[1], state=KeyState.REVOKED, revoked_at=MOMENT)
    change = KeyChange(key=revoked, event="key.revoked", actor="a", reason="leaked", at=MOMENT)
    changed = []

    def change_once(*_args):
        if not changed:
            changed.append(other.change_ring("es256", before.epoch, [change]))

    event.listen(database.engine, "after_cursor_execute", change_once)
    try:
        (read,) = store.load_rings(MOMENT)
    finally:
        event.remove(database.engine, "after_cursor_execute", change_once)
        elsewhere.close()
    assert changed == [True]
    assert read.epoch == before.epoch, "the change came after the epoch was read"
    stale = replace(before.keys[1], state=KeyState.ACTIVE, activate_at=MOMENT, reason="stale")
    late = KeyChange(key=stale, event="key.activated", actor="b", reason="late", at=MOMENT)
    assert not store.change_ring("es256", read.epoch, [late])
    assert store.load_rings(MOMENT)[0].keys[1].state is KeyState.REVOKED
