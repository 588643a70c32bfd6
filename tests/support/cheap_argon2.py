"""Imported secrets at the least cost of Argon2id: at that of the server each takes 0.2 s."""

from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher

from authz_server.clients import secrets

#: What a server uses.
SERVERS_OWN = secrets._argon2  # noqa: SLF001 - nothing else has its parameters


@pytest.fixture(scope="session", autouse=True)
def _cheap_argon2() -> Iterator[None]:
    """Keep imported secrets of this process at the least cost; servers have their own processes."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "_argon2", cheap)
        yield
