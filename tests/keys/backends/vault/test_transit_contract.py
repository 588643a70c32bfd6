"""Transit passes the contract of all backends, on a real server."""

import pytest

from keys.backend import KeyBackend
from keys.testing import KeyBackendContract
from support.vault_parts import TransitKeys, open_client, token_access


@pytest.fixture
def client(bao_mount):
    access = token_access(bao_mount.server.address, token=bao_mount.server.token)
    with open_client(access) as client:
        yield client


class TestTransit(KeyBackendContract):
    @pytest.fixture
    def backend(self, client, bao_mount) -> KeyBackend:
        return TransitKeys(client, bao_mount.mount)
