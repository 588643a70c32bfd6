"""The store in memory passes the contract, so tests that use it say something about a real one."""

import pytest

from keys.memory import MemoryKeyStore
from keys.testing import KeyStoreContract


class TestMemoryKeyStore(KeyStoreContract):
    @pytest.fixture
    def store(self):
        return MemoryKeyStore()
