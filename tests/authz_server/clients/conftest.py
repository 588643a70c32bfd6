import pytest

from support.clock import FakeClock
from support.registry import Registry


@pytest.fixture
def registry(database_url):
    registry = Registry(database_url, FakeClock())
    registry.import_g2p_connect()
    yield registry
    registry.engine.dispose()
