import pytest

from support.clock import FakeClock
from support.fetching import fetched, make_fetcher, monotonic
from support.registry import Registry

__all__ = ["fetched", "make_fetcher", "monotonic", "registry", "shared_registry"]


@pytest.fixture(scope="module")
def shared_registry(module_database_url):
    """As `registry`, for all tests of a file that change nothing."""
    registry = Registry(module_database_url, FakeClock())
    registry.import_g2p_connect()
    yield registry
    registry.engine.dispose()


@pytest.fixture
def registry(database_url):
    registry = Registry(database_url, FakeClock())
    registry.import_g2p_connect()
    yield registry
    registry.engine.dispose()
