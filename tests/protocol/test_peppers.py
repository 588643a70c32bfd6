"""The fingerprint of the pepper, of what dynamic registration makes and of what is used."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select, update

from authz_server.clients.models import ClientSecret
from authz_server.clients.registration.models import InitialAccessToken, Registration
from support.protocol import Protocol
from support.registration import Registrar, registrar

__all__ = ["registrar"]

TABLES = (ClientSecret, InitialAccessToken, Registration)


@pytest.fixture
def protocol(registrar: Registrar) -> Protocol:
    return registrar.protocol


def _fingerprints(protocol: Protocol) -> list[set[str | None]]:
    with protocol.services.database.reading() as session:
        return [set(session.scalars(select(each.pepper_fingerprint))) for each in TABLES]


def _mark(protocol: Protocol, fingerprint: str | None) -> None:
    with protocol.services.database.transaction() as session:
        for table in TABLES:
            session.execute(update(table).values(pepper_fingerprint=fingerprint))


@pytest.fixture
def forget(protocol: Protocol) -> Iterator[Callable[[], None]]:
    """Makes every row one of an earlier schema, until the end of the test."""
    yield lambda: _mark(protocol, None)
    _mark(protocol, protocol.services.secrets.fingerprint)


def test_what_registration_makes_has_the_fingerprint(registrar: Registrar, protocol: Protocol):
    registrar.new()
    own = protocol.services.secrets.fingerprint
    assert _fingerprints(protocol) == [{own}, {own}, {own}]
    assert len(own) == 16


def test_a_use_proves_the_pepper(registrar: Registrar, protocol: Protocol, forget):
    """A wrong secret or token proves nothing."""
    own = protocol.services.secrets.fingerprint
    token = registrar.initial_token("mapper/link", uses=2)
    client = registrar.register({}, token).json
    credentials = registrar.credentials(client)
    forget()
    wrong = {**client, "client_secret": "w" * 43}
    assert protocol.ask("token", registrar.credentials(wrong)).status_code == 401
    assert registrar.register({}, "w" * 43).status_code == 401
    protocol.services.maintenance.flush_last_used()
    assert _fingerprints(protocol) == [{None}, {None}, {None}]
    assert protocol.ask("token", credentials).status_code == 200
    protocol.services.maintenance.flush_last_used()
    with protocol.services.database.reading() as session:
        of_client = select(ClientSecret.pepper_fingerprint).filter_by(client_id=client["client_id"])
        assert session.scalar(of_client) == own
    assert registrar.register({}, token).status_code == 201
    assert own in _fingerprints(protocol)[1]
    update_of = {"client_id": client["client_id"], "client_name": "Ministry"}
    assert registrar.manage("PUT", client, update_of).status_code == 200
    with protocol.services.database.reading() as session:
        assert session.get(Registration, client["client_id"]).pepper_fingerprint == own
