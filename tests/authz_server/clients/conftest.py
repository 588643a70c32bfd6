import pytest

from support.clock import FakeClock
from support.fetching import fetched, make_fetcher, monotonic
from support.registry import Registry

__all__ = ["fetched", "make_fetcher", "monotonic", "registry", "shared_registry"]


def _import_g2p_connect(url, _folder):
    registry = Registry(url, FakeClock())
    registry.import_g2p_connect()
    registry.engine.dispose()


@pytest.fixture(scope="module")
def shared_registry(module_database_url, fill_database):
    """As `registry`, for all tests of a file that change nothing."""
    fill_database(module_database_url, "clients", _import_g2p_connect)
    registry = Registry(module_database_url, FakeClock())
    yield registry
    registry.engine.dispose()


@pytest.fixture
def registry(database_url, fill_database):
    """The registry on a database of the test alone, with the G2P Connect catalogue."""
    fill_database(database_url, "clients", _import_g2p_connect)
    registry = Registry(database_url, FakeClock())
    yield registry
    registry.engine.dispose()
