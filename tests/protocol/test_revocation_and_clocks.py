"""A revocation that was acknowledged holds, whatever the clock of the machine showed meanwhile."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, update

from authz_server.app import EXTENSION, create_app
from authz_server.assembly import base
from authz_server.database.clock import ClockMark
from authz_server.errors import NotFoundError
from authz_server.operations.tokens import revoke_token
from authz_server.settings import load_settings
from support.parties import ACTOR, Parties, demo_with_keys
from support.settings_file import write_settings, write_shared_secrets


class Machine:
    """The clock of the machine, which a test sets off."""

    def __init__(self, monkeypatch) -> None:
        self.off = timedelta()
        machine = self

        class Clock(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime.now(tz) + machine.off

        monkeypatch.setattr(base, "datetime", Clock)


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


@pytest.fixture
def site(database_url, tmp_path, secrets_watch, machine):  # noqa: ARG001 - its clock is the application's
    """An application with the system's clock, which has checked it once."""
    write_shared_secrets(tmp_path)
    settings = load_settings(write_settings(tmp_path, database_url, {}))
    parties = Parties(settings, secrets_watch)
    demo = demo_with_keys(parties, database_url, tmp_path)
    app = create_app(settings)
    services = app.extensions[EXTENSION]
    services.purge.run()
    yield app.test_client(), demo, services
    services.maintenance.stop()
    services.database.close()
    services.sink.close()


def token_of(client, demo, scope="mapper/link"):
    form = {"grant_type": "client_credentials", "scope": scope}
    answer = client.post("/oauth2/token", data=form, headers=demo.basic.headers())
    assert answer.status_code == 200, answer.text
    return answer.json["access_token"]


def is_active(client, demo, token):
    form = {"token": token}
    answer = client.post("/oauth2/introspect", data=form, headers=demo.mapper.headers())
    return answer.json["active"]


OFFS = [timedelta(hours=2), -timedelta(hours=2), timedelta(days=400)]


@pytest.mark.parametrize("off", OFFS)
def test_a_token_that_seems_to_be_out_of_date_is_revoked(site, machine, off):
    """Case F67: the clock leaps, the client revokes, and the clock is set back."""
    client, demo, _ = site
    token = token_of(client, demo)
    machine.off = off
    answer = client.post("/oauth2/revoke", data={"token": token}, headers=demo.basic.headers())
    assert answer.status_code == 200
    machine.off = timedelta()
    assert is_active(client, demo, token) is False


@pytest.mark.parametrize("off", OFFS)
def test_an_operator_revokes_it_too(site, machine, off):
    client, demo, services = site
    token = token_of(client, demo)
    machine.off = off
    assert revoke_token(services, token, actor=ACTOR).changed
    machine.off = timedelta()
    assert is_active(client, demo, token) is False


def test_nothing_is_stored_of_a_token_that_has_certainly_expired(site, monkeypatch):
    client, demo, services = site
    token = token_of(client, demo)
    later = datetime.now(UTC) + timedelta(hours=2)
    check = type("Check", (), {"reached": later})
    monkeypatch.setattr(type(services.clock_guard), "check", lambda *_: check)
    monkeypatch.setattr(services.verifier, "_clock", lambda: later)
    answer = client.post("/oauth2/revoke", data={"token": token}, headers=demo.basic.headers())
    assert answer.status_code == 200
    with pytest.raises(NotFoundError):
        revoke_token(services, token, actor=ACTOR)
    monkeypatch.undo()
    assert is_active(client, demo, token) is True


def test_nothing_is_written_for_a_token_that_had_expired_at_the_last_check(site, machine):
    """Revocations of expired tokens do not wait for each other, nor for room on the disk."""
    client, demo, services = site
    token = token_of(client, demo)
    machine.off = timedelta(hours=2)
    moved = ClockMark.microseconds + machine.off // timedelta(microseconds=1)
    with services.transaction() as session:
        session.execute(update(ClockMark).values(microseconds=moved))
    statements = []

    def note(_connection, _cursor, statement, *_):
        statements.append(statement)

    event.listen(services.database.engine, "before_cursor_execute", note)
    answer = client.post("/oauth2/revoke", data={"token": token}, headers=demo.basic.headers())
    assert answer.status_code == 200
    with pytest.raises(NotFoundError):
        revoke_token(services, token, actor=ACTOR)
    event.remove(services.database.engine, "before_cursor_execute", note)
    assert any("clock_mark" in each for each in statements)
    assert [each for each in statements if "SELECT" not in each or "FOR UPDATE" in each] == []


def test_a_token_from_ahead_is_revoked_after_the_clock_was_trusted_there(site, machine):
    """The mark was ahead as well, and the clock was set back since."""
    client, demo, services = site
    token = token_of(client, demo)
    machine.off = -timedelta(hours=2)
    with services.transaction() as session:
        moved = ClockMark.microseconds + timedelta(hours=2) // timedelta(microseconds=1)
        session.execute(update(ClockMark).values(microseconds=moved))
    answer = client.post("/oauth2/revoke", data={"token": token}, headers=demo.basic.headers())
    assert answer.status_code == 200
    machine.off = timedelta()
    assert is_active(client, demo, token) is False
