"""Sweeping: what nothing can need goes, everything else stays, however many sweep at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select

from authz_server.clients.models import ClientSecret
from authz_server.database.change_feed import CHANGES_KEPT_MICROSECONDS, Change, Revision
from authz_server.tokens.models import ReferenceToken, RevocationCutOff, RevokedToken
from support.parties import ACTOR
from support.stage import INACTIVE, ApplicationFixture

pytestmark = pytest.mark.usefixtures("alone")

KEPT_SECONDS = 120  # beyond a token's end: twice the margin for clocks that differ
SWEEPERS = 4


@pytest.fixture(autouse=True)
def small_batches(stage: ApplicationFixture):
    """Have every sweep take several rounds."""
    purge = stage.services.maintenance.purge
    kept, purge.batch_rows = purge.batch_rows, 3
    yield
    purge.batch_rows = kept


def sweep_at_once(stage: ApplicationFixture) -> int:
    with ThreadPoolExecutor(SWEEPERS) as pool:
        return sum(pool.map(lambda _: stage.services.maintenance.sweep(), range(SWEEPERS)))


def rows(stage: ApplicationFixture) -> dict[str, int]:
    with stage.services.database.reading() as session:
        return {
            model.__tablename__: session.scalar(select(func.count()).select_from(model)) or 0
            for model in (RevokedToken, ReferenceToken, RevocationCutOff)
        }


def cut_off(stage: ApplicationFixture, client_id: str) -> None:
    with stage.change() as (services, session):
        at = int(stage.clock().timestamp() * 1_000_000)
        services.revocations.cut_off(
            session, kind="client", subject=client_id, instant_microseconds=at, actor=ACTOR
        )


def test_nothing_goes_before_its_time_and_everything_after(stage: ApplicationFixture):
    stage.clock.advance(10_000)
    sweep_at_once(stage)
    assert set(rows(stage).values()) == {0}
    client = stage.new_client()
    tokens = {form: [stage.token(f"basic-{form}/read") for _ in range(12)] for form in FORMS}
    for form in FORMS:
        for token in tokens[form][:10]:
            stage.revoke(token)
    lost = stage.token("basic-jwt/read", client)
    cut_off(stage, client.id)
    full = {"revoked_token": 20, "reference_token": 12, "revocation_cut_off": 1}

    stage.clock.advance(899)
    assert sweep_at_once(stage) == 0
    assert rows(stage) == full
    for form in FORMS:
        states = [stage.introspect(token, f"basic-{form}")["active"] for token in tokens[form]]
        assert states == [False] * 10 + [True] * 2
    assert stage.introspect(lost) == INACTIVE

    # Ended by themselves, but a node whose clock is behind would still take them.
    stage.clock.advance(1 + 59)
    assert sweep_at_once(stage) == 0
    stage.clock.advance(KEPT_SECONDS)
    assert sweep_at_once(stage) == 32
    # A cut-off is needed for as long as the longest token could live.
    assert rows(stage) == {"revoked_token": 0, "reference_token": 0, "revocation_cut_off": 1}
    stage.clock.advance(3_600 - 900 - 60 - 1)
    assert sweep_at_once(stage) == 0
    stage.clock.advance(KEPT_SECONDS)
    assert sweep_at_once(stage) == 1
    assert set(rows(stage).values()) == {0}


FORMS = ("jwt", "reference")


def test_sweeping_beside_issuing_and_revoking(stage: ApplicationFixture):
    for _ in range(20):
        stage.revoke(stage.token("basic-reference/read"))
    stage.clock.advance(2_000)

    def work(_: int) -> tuple[str, str]:
        token, gone = (stage.token("basic-reference/read") for _ in range(2))
        stage.revoke(gone)
        return token, gone

    with ThreadPoolExecutor(SWEEPERS * 2) as pool:
        working = [pool.submit(work, number) for number in range(12)]
        sweeping = [pool.submit(stage.services.maintenance.sweep) for _ in range(SWEEPERS)]
        pairs = [each.result() for each in working]
        swept = sum(each.result() for each in sweeping)
    assert swept + stage.services.maintenance.sweep() == 40
    assert all(stage.introspect(token, "basic-reference")["active"] for token, _ in pairs)
    assert all(stage.introspect(gone, "basic-reference") == INACTIVE for _, gone in pairs)


def test_old_changes_go_and_the_feed_goes_on(stage: ApplicationFixture):
    sweep_at_once(stage)
    client = stage.new_client()
    aged = -CHANGES_KEPT_MICROSECONDS - 1_000_000
    with stage.services.database.transaction() as session:
        for change in session.scalars(select(Change)):
            change.at_microseconds += aged
    kept = stage.new_client()
    with stage.services.database.reading() as session:
        current = session.scalar(select(Revision.value))
        number = session.scalar(select(func.count()).select_from(Change))
    swept = sweep_at_once(stage)
    with stage.services.database.reading() as session:
        left = session.scalars(select(Change.revision)).all()
    assert swept + len(left) == number
    assert current in left
    assert len(left) < 5
    token = stage.token(caller=client)
    with stage.services.database.transaction() as session:
        stage.services.clients.set_enabled(session, client.id, actor=ACTOR, enabled=False)
    assert stage.introspect(token) == INACTIVE
    assert stage.introspect(stage.token(caller=kept))["active"] is True


def test_last_used_times_are_written_down_and_never_go_back(stage: ApplicationFixture):
    # Far enough from when the keys were made that going back does not lead before it.
    stage.clock.advance(60)
    client, service = stage.new_client(), stage.services.maintenance
    stage.token(caller=client)
    first = stage.clock()

    def last_used() -> datetime | None:
        with stage.services.database.reading() as session:
            query = select(ClientSecret.last_used_at).where(ClientSecret.client_id == client.id)
            return session.scalar(query)

    assert last_used() is None
    with ThreadPoolExecutor(SWEEPERS) as pool:
        list(pool.map(lambda _: service.flush_last_used(), range(SWEEPERS)))
    assert last_used() == first
    assert first.tzinfo is UTC
    stage.clock.advance(-30)
    stage.token(caller=client)
    service.flush_last_used()
    assert last_used() == first
    stage.clock.advance(90)
    stage.token(caller=client)
    service.flush_last_used()
    assert last_used() == stage.clock()


def test_failed_attempts_are_no_use_of_a_secret(stage: ApplicationFixture):
    client, service = stage.new_client(), stage.services.maintenance
    service.flush_last_used()
    form = {"client_id": client.id, "client_secret": "wrong", "grant_type": "client_credentials"}
    assert stage.post("token", form).status_code == 401
    # The right secret by the wrong method is none either.
    form["client_secret"] = client.secret
    assert stage.post("token", form).status_code == 401
    service.flush_last_used()
    with stage.services.database.reading() as session:
        query = select(ClientSecret.last_used_at).where(ClientSecret.client_id == client.id)
        assert session.scalar(query) is None
