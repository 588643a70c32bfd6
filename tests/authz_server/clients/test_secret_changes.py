import pytest
from sqlalchemy import select

from authz_server.audit.models import AuditRecord
from authz_server.clients.models import is_live
from authz_server.errors import ConflictError, InvalidChangeError, NotFoundError
from support.registry import ACTOR, LIMITS, later


@pytest.fixture
def registry(registry):
    """The registry with a client."""
    registry.create_client()
    return registry


def _add(registry, **values):
    with registry.session() as session:
        return registry.clients.add_secret(session, "ministry", actor=ACTOR, **values)


def _end(registry, secret, **values):
    with registry.session() as session:
        return registry.clients.end_secret(session, "ministry", secret.id, actor=ACTOR, **values)


def _live(registry):
    with registry.session() as session:
        client = registry.clients.get_client(session, "ministry")
        return [secret.id for secret in client.secrets if is_live(secret, registry.clock())]


def test_a_generated_secret_is_returned_once_and_kept_as_hmac(registry):
    """Case H88."""
    secret, plain = _add(registry, description="first")
    assert len(plain) == 43
    assert secret.record == registry.secrets.record(plain.encode())
    assert plain not in secret.record
    with registry.session() as session:
        records = session.scalars(select(AuditRecord)).all()
        assert not any(plain in str(vars(record)) for record in records)
    assert (secret.description, secret.last_used_at) == ("first", None)


def test_an_imported_secret_is_kept_as_argon2id_and_not_returned(registry):
    secret, plain = _add(registry, imported_secret=b"from the old system")
    assert plain == ""
    assert secret.record.startswith("argon2id$")


def test_a_client_that_signs_with_its_secret_gets_a_derived_one(registry):
    """Case H88."""
    with registry.session() as session:
        registry.clients.update_client(
            session, "ministry", actor=ACTOR, authentication_method="client_secret_jwt"
        )
    secret, plain = _add(registry)
    assert registry.secrets.derive(registry.secrets.salt_of(secret.record)) == plain.encode()
    assert plain not in secret.record
    with pytest.raises(InvalidChangeError, match="cannot be imported"):
        _add(registry, imported_secret=b"from the old system")


def test_rotation_overlaps_until_the_old_secret_ends(registry):
    """Case A12."""
    old, _ = _add(registry)
    new, _ = _add(registry)
    _end(registry, old, at=later(registry.clock, 3_600))
    assert set(_live(registry)) == {old.id, new.id}
    registry.clock.advance(3_600)
    assert _live(registry) == [new.id]


def test_ending_is_immediate_and_nothing_revives_it(registry):
    secret, _ = _add(registry, expires_at=later(registry.clock, 3_600))
    ended = _end(registry, secret)
    assert ended.ended_at == registry.clock()
    again = _end(registry, secret, at=later(registry.clock, 60))
    assert again.ended_at == registry.clock()
    registry.clock.advance(10)
    assert _end(registry, secret).ended_at < registry.clock()
    assert _live(registry) == []


def test_an_end_can_come_nearer_but_not_move_away(registry):
    secret, _ = _add(registry, expires_at=later(registry.clock, 3_600))
    _end(registry, secret, at=later(registry.clock, 600))
    with pytest.raises(ConflictError, match="already"):
        _end(registry, secret, at=later(registry.clock, 1_200))
    registry.clock.advance(600)
    assert _live(registry) == []


def test_an_expiry_in_the_past_or_without_zone_is_refused(registry):
    for wrong in (
        registry.clock(),
        later(registry.clock, -1),
        registry.clock().replace(tzinfo=None),
    ):
        with pytest.raises(InvalidChangeError, match=r"^expires_at"):
            _add(registry, expires_at=wrong)


def test_the_number_of_working_secrets_is_bounded(registry):
    made = [_add(registry)[0] for _ in range(LIMITS.maximum_live_secrets)]
    with pytest.raises(ConflictError, match="end one first"):
        _add(registry)
    _end(registry, made[0])
    assert _add(registry)[1]


def test_the_number_of_working_imported_secrets_is_bounded(registry):
    for number in range(LIMITS.maximum_live_imported_secrets):
        _add(registry, imported_secret=f"imported secret {number}".encode())
    with pytest.raises(ConflictError, match="imported"):
        _add(registry, imported_secret=b"one too many")
    assert _add(registry)[1]


def test_secrets_of_nobody_and_unknown_secrets_are_not_found(registry):
    with registry.session() as session:
        with pytest.raises(NotFoundError, match="nobody"):
            registry.clients.add_secret(session, "nobody", actor=ACTOR)
        with pytest.raises(NotFoundError, match="0123456789abcdef"):
            registry.clients.end_secret(session, "ministry", "0123456789abcdef", actor=ACTOR)


def test_each_change_is_recorded_with_the_secrets_id(registry):
    """Case K124."""
    secret, _ = _add(registry)
    _end(registry, secret)
    with registry.session() as session:
        records = session.scalars(
            select(AuditRecord).where(AuditRecord.action.like("client.secret%"))
        ).all()
    assert [record.action for record in records] == ["client.secret_added", "client.secret_ended"]
    assert {record.detail["secret_id"] for record in records} == {secret.id}
