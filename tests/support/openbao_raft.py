"""OpenBao with raft storage: one node that can be sealed and crashed, or three with a leader."""

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Self

from support.openbao_authority import CertificateAuthority
from support.openbao_process import OpenBaoServer

_SETTLE_SECONDS = 30.0
_PAUSE_SECONDS = 0.02

_CONFIGURATION = """
log_level = "warn"
api_addr = {address}
cluster_addr = {cluster_address}
storage "raft" {{
  path = {data}
  node_id = {node}
  performance_multiplier = 1
  autopilot_reconcile_interval = "100ms"
  autopilot_update_interval = "100ms"
}}
listener "tcp" {{
  address = {listen}
  cluster_address = {cluster_listen}
  {tls}
}}
"""
_AUDIT = """
audit "file" "file" {{
  options {{
    file_path = {path}
  }}
}}
"""


class RaftServer(OpenBaoServer):
    """One raft node whose data survive `kill()` and `restart()`.

    Args:
        audit: Write every request and reply to `audit_path`.
        audit_path: Where to; a file of the server's own folder unless given.
        authority: Listen by TLS with a certificate of this CA; client certificates are accepted.
        initialise: Initialise and unseal at the first start.
    """

    def __init__(
        self,
        *,
        audit: bool = False,
        audit_path: str = "",
        authority: CertificateAuthority | None = None,
        initialise: bool = True,
    ) -> None:
        super().__init__(authority)
        self.audit_path = audit_path or str(self.directory / "audit.jsonl")
        self.unseal_key = ""
        self.in_cluster = False
        self._initialise = initialise
        self._write_configuration(audit=audit)

    def start(self) -> None:
        """Start it; the first time initialise it; unseal it. A node of several may stay standby."""
        super().start()
        if self._initialise and not self.unseal_key:
            self.initialise()
        if self.unseal_key:
            self.unseal(active=not self.in_cluster)

    def initialise(self) -> None:
        """Make its root token and unseal key; it stays sealed."""
        made = self.admin().client.sys.initialize(secret_shares=1, secret_threshold=1)
        self.token, self.unseal_key = made["root_token"], made["keys"][0]

    def adopt(self, leader: "RaftServer") -> None:
        """Join the cluster of `leader`, with its root token and unseal key."""
        self.token, self.unseal_key = leader.token, leader.unseal_key
        body = {"leader_api_addr": leader.address}
        if leader.authority is not None:
            body["leader_ca_cert"] = leader.authority.certificate_path.read_text()
        self.admin().call("POST", "sys/storage/raft/join", body)

    def unseal(self, *, active: bool = True) -> None:
        """Unseal it and return when it serves; when it is the leader too, if `active`."""
        self.admin().client.sys.submit_unseal_key(self.unseal_key)
        self.await_health(
            lambda health: not health["sealed"] and not (active and health["standby"])
        )

    def seal(self) -> None:
        """Seal it."""
        self.admin().client.sys.seal()
        self.await_health(lambda health: health["sealed"])

    def restart(self) -> None:
        """Kill it and start it again, unsealed."""
        self.kill()
        self.start()

    def is_leader(self) -> bool:
        """Tell whether it is the active node."""
        health = self.health()
        return health is not None and not health["sealed"] and not health["standby"]

    def _arguments(self) -> Sequence[str]:
        return (f"-config={self.directory / 'config.hcl'}",)

    def _write_configuration(self, *, audit: bool) -> None:
        data = self.directory / "data"
        data.mkdir()
        tls = "tls_disable = true"
        if self.authority is not None:
            made = self.authority.certify(f"openbao-{self.port}")
            tls = (
                f"tls_cert_file = {json.dumps(str(made.certificate_path))}\n"
                f"  tls_key_file = {json.dumps(str(made.private_key_path))}"
            )
        text = _CONFIGURATION.format(
            address=json.dumps(self.address),
            cluster_address=json.dumps(f"https://127.0.0.1:{self.cluster_port}"),
            data=json.dumps(str(data)),
            node=json.dumps(f"node-{self.port}"),
            listen=json.dumps(f"127.0.0.1:{self.port}"),
            cluster_listen=json.dumps(f"127.0.0.1:{self.cluster_port}"),
            tls=tls,
        )
        text += _AUDIT.format(path=json.dumps(self.audit_path)) if audit else ""
        (self.directory / "config.hcl").write_text(text)


class RaftCluster:
    """Three raft nodes, unsealed, with a leader. A context manager."""

    def __init__(self, size: int = 3) -> None:
        first = RaftServer()
        self.nodes = (first, *(RaftServer(initialise=False) for _ in range(size - 1)))
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            first, *others = [stack.enter_context(node) for node in self.nodes]
            settings = {"server_stabilization_time": "100ms"}
            first.admin().call("POST", "sys/storage/raft/autopilot/configuration", settings)
            for node in others:
                node.adopt(first)
                node.unseal(active=False)
            self._await_voters()
            for node in self.nodes:
                node.in_cluster = True
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def addresses(self) -> tuple[str, ...]:
        """The base URLs of all nodes."""
        return tuple(node.address for node in self.nodes)

    @property
    def token(self) -> str:
        """The root token."""
        return self.nodes[0].token

    def leader(self) -> RaftServer:
        """Return the active node, waiting for one to be elected."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < deadline:
            for node in self.nodes:
                if node.is_leader():
                    return node
            time.sleep(_PAUSE_SECONDS)
        raise RuntimeError("the cluster has no leader")

    def standbys(self) -> tuple[RaftServer, ...]:
        """Return the nodes that are not the leader."""
        leader = self.leader()
        return tuple(node for node in self.nodes if node is not leader)

    def step_down(self) -> RaftServer:
        """Have the leader step down; return it at once, without waiting for the next one."""
        leader = self.leader()
        leader.admin().client.sys.step_down()
        return leader

    def await_leader_other_than(self, former: RaftServer) -> RaftServer:
        """Return the new leader after `step_down()` or a kill."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < deadline:
            leader = self.leader()
            if leader is not former:
                return leader
            time.sleep(_PAUSE_SECONDS)
        raise RuntimeError("the former leader is the leader again")

    def _await_voters(self) -> None:
        # A node votes only after a stable while; until then, losing the leader is fatal.
        admin, deadline = self.nodes[0].admin(), time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < deadline:
            configuration = admin.call("GET", "sys/storage/raft/configuration")
            servers = configuration["data"]["config"]["servers"]
            if len(servers) == len(self.nodes) and all(server["voter"] for server in servers):
                return
            time.sleep(_PAUSE_SECONDS)
        raise RuntimeError("not every node became a voter")
