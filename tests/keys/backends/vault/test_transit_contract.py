"""Transit passes the contract of all backends, on a real server."""

import pytest

from keys.backend import KeyBackend
from keys.testing import KeyBackendContract
from support.vault_parts import TransitKeys, open_session, token_access


@pytest.fixture
def session(bao_mount):
    access = token_access(bao_mount.server.address, token=bao_mount.server.token)
    with open_session(access) as session:
        yield session


class TestTransit(KeyBackendContract):
    @pytest.fixture
    def backend(self, session, bao_mount) -> KeyBackend:
        return TransitKeys(session, bao_mount.mount)
