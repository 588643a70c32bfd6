"""Secrets that end and revocations in force, counted from the database at each scrape."""

from datetime import timedelta

import pytest

from authz_server.metrics.definitions import CUT_OFFS, SECRETS
from authz_server.serving.client_metrics import sample_clients
from authz_server.settings import load_settings
from support.parties import ACTOR, Parties
from support.settings_file import write_settings

DAY = timedelta(days=1)


@pytest.fixture
def parties(tmp_path, database_url, secrets_watch):
    """Makes parties in a database with the scopes of G2P Connect."""
    parties = Parties(load_settings(write_settings(tmp_path, database_url, {})), secrets_watch)
    parties.import_scopes()
    return parties


@pytest.fixture
def counted(parties):
    """A function that returns the samples of one metric by label."""

    def count(family):
        with parties.change() as (services, _):
            samples = list(sample_clients(services.database, services.clock()))
        return {each.labels[0]: each.value for each in samples if each.family is family}

    return count


def test_secrets_are_counted_by_the_days_to_their_end(parties, counted):
    """Case S265."""
    assert set(counted(SECRETS).values()) == {0}
    ends = {"soon": DAY / 2, "week": 6 * DAY, "month": 29 * DAY, "year": 365 * DAY, "never": None}
    with parties.change() as (services, session):
        now = services.clock()
        for name, left in ends.items():
            services.clients.create_client(
                session, actor=ACTOR, id=name, name=name, allowed_scopes=["mapper/link"]
            )
            services.clients.add_secret(
                session, name, actor=ACTOR, expires_at=None if left is None else now + left
            )
        secret, _ = services.clients.add_secret(session, "never", actor=ACTOR)
        services.clients.end_secret(session, "never", secret.id, actor=ACTOR)
    assert counted(SECRETS) == {"1": 1, "7": 2, "30": 3, "90": 3, "any": 5}
    with parties.change() as (services, session):
        services.clients.set_enabled(session, "soon", actor=ACTOR, enabled=False)
    assert counted(SECRETS) == {"1": 0, "7": 1, "30": 2, "90": 2, "any": 4}


def test_cut_offs_in_force_are_counted_by_kind(parties, counted):
    """Case S265."""
    assert set(counted(CUT_OFFS).values()) == {0}
    with parties.change() as (services, session):
        for kind, subject in (("scope", "a"), ("scope", "b"), ("audience", "c"), ("all", "")):
            services.revocations.cut_off(
                session,
                kind=kind,
                subject=subject,
                instant_microseconds=int(services.clock().timestamp() * 1e6),
                actor=ACTOR,
                reason="",
            )
    assert counted(CUT_OFFS) == {"client": 0, "key": 0, "scope": 2, "audience": 1, "all": 1}
