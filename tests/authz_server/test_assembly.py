"""Which parts a process makes, and when."""

from functools import cached_property

import pytest
from sqlalchemy import text

from authz_server.assembly.operator import OperatorServices, operator_services
from authz_server.assembly.server import ManagementServices, ServerServices
from authz_server.audit.chain_events import AuditContinued
from authz_server.audit.notifier import AuditUnavailable
from authz_server.database.orm import open_database
from authz_server.operations.scopes import add_scope
from support.roles import attached


def parts_of(kind):
    return {name for name in dir(kind) if isinstance(getattr(kind, name), cached_property)}


def made(services):
    return parts_of(type(services)) & vars(services).keys()


def test_a_server_has_every_part_before_its_first_request(services):
    assert isinstance(services, ServerServices)
    assert made(services) == parts_of(ServerServices)
    assert "prepared_queries" in vars(services.database)


def test_a_command_makes_a_part_and_what_that_needs(settings):
    with operator_services(settings) as services:
        assert made(services) == set()
        assert services.clients is services.clients
        assert made(services) == {"clients", "corrected_clock", "secrets"}
        services.key_store.load_rings(services.clock())
        assert made(services) == {"clients", "corrected_clock", "secrets", "key_store"}
    assert parts_of(OperatorServices) > {"key_backends", "plugins", "sink"}


def test_a_command_loads_no_plugins_where_none_is_enabled(settings):
    with operator_services(settings) as services:
        add_scope(services, actor="operator:ada via cli", name="land/read")
        assert {"notify", "sink"} <= made(services)
        assert "plugins" not in made(services)


def test_a_command_closes_what_it_opened_whatever_fails(settings, database_url, caplog):
    """Case P210."""
    with attached(database_url) as database, database.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    def warn(_sentence):
        raise BrokenPipeError

    context = operator_services(settings, warn=warn)
    services = context.__enter__()
    with services.database.reading() as session:
        session.execute(text("SELECT 1"))
    services.sink.write(AuditContinued())
    with pytest.raises(BrokenPipeError):
        context.__exit__(None, None, None)
    assert "the end of the audit records is not stored: The schema" in caplog.text
    assert services.database.engine.pool.checkedin() == 0
    with pytest.raises(AuditUnavailable):
        services.sink.write(AuditContinued())


def test_what_verifies_alone_opens_no_backend(settings, services):
    services.feed.poll()
    with operator_services(settings) as own:
        own.feed.poll()
        assert own.key_rings.ring_names() == ("es256",)
        assert own.key_rings.jwks() == services.key_rings.jwks()
        assert "key_backends" not in vars(own)


def test_the_health_listener_keeps_the_rings_and_no_clients(settings, services):
    services.feed.poll()
    management = ManagementServices(settings, open_database(settings.database))
    management.feed.poll()
    assert management.key_rings.has_active_key("es256")
    assert not {"directory", "catalogue", "rules", "key_backends", "sink"} & made(management)
    management.database.close()
