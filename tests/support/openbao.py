"""Real OpenBao servers for tests, the demonstration and benchmarks; the doors to all of it.

In a test, take a fixture::

    def test_it(openbao): ...          # a dev server of the whole session: openbao.address, .token
    def test_it(bao_mount): ...        # an empty transit engine of this test's own: bao_mount.mount
    def test_it(raft_server): ...      # a single raft node of this module, unsealed
    def test_it(raft_cluster): ...     # three raft nodes of this module, unsealed

Anywhere, use the classes, which are context managers::

    with DevServer() as server: ...                         # in memory, unsealed, root token
    with RaftServer(audit=True) as server: ...              # on disk, initialised and unsealed
    with RaftServer(authority=CertificateAuthority(folder)) as server: ...       # the same by TLS
    with RaftCluster() as cluster: cluster.leader(), cluster.standbys(), cluster.step_down()

Every server has `address`, `token` (root's), `process_id`, `log_path`, `admin()` (see
`openbao_admin.OpenBaoAdmin`), `kill()`, `stop()`, `start()`, `paused()`; a raft node also `seal()`,
`unseal()`, `restart()`, `audit_path`. Servers end with the thread that started them.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from support.openbao_admin import OpenBaoAdmin
from support.openbao_authority import CertificateAuthority
from support.openbao_process import DevServer, OpenBaoServer
from support.openbao_raft import RaftCluster, RaftServer

__all__ = [
    "BaoMount",
    "CertificateAuthority",
    "DevServer",
    "OpenBaoAdmin",
    "OpenBaoServer",
    "RaftCluster",
    "RaftServer",
]


@dataclass(frozen=True)
class BaoMount:
    """A secrets engine of one test's own on the session's dev server."""

    server: DevServer
    admin: OpenBaoAdmin
    mount: str


@pytest.fixture(scope="session")
def openbao() -> Iterator[DevServer]:
    """A dev server of the whole session; leave its policies and mounts as they were."""
    with DevServer() as server:
        yield server


@pytest.fixture
def bao_mount(openbao: DevServer) -> Iterator[BaoMount]:
    """An empty transit engine on the dev server, gone after the test."""
    admin, mount = openbao.admin(), f"transit-{secrets.token_hex(4)}"
    admin.enable_transit(mount)
    yield BaoMount(openbao, admin, mount)
    admin.disable_engine(mount)


@pytest.fixture(scope="module")
def raft_server() -> Iterator[RaftServer]:
    """A single raft node of this module with an audit file; leave it running and unsealed."""
    with RaftServer(audit=True) as server:
        yield server


@pytest.fixture(scope="module")
def raft_cluster() -> Iterator[RaftCluster]:
    """Three raft nodes of this module; leave all of them running and unsealed."""
    with RaftCluster() as cluster:
        yield cluster
