"""One installation: a database, nodes that share it, and a rotator beside them."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from authz_server.assembly import Services
from authz_server.assembly.operator import operator_services
from authz_server.scopes.g2p_connect import CATALOGUE
from authz_server.settings import Settings, load_settings
from keys.signing_key import RingSnapshot
from rotation_demo.fast_clock import RING, FastClock
from rotation_demo.traffic import Callers, Node
from rotation_demo.vault import VaultKey, grant
from support.live_server import LiveServer
from support.settings_file import write_settings
from support.tied_process import end_process, start_tied

ISSUER = "https://authz.example"
AUDIENCE = "https://mapper.example"
SCOPE = "mapper/link"
ACTOR = "operator:demonstration"
PRODUCT = "authz_server"
WITHOUT_PREPUBLICATION = "rotation_demo.without_prepublication"
_ROOT = Path(__file__).parents[1]
_COMMAND_SECONDS = 60
#: What each start logs: nothing is ready before it is.
_OF_EVERY_START = "not ready"


class CommandFailedError(Exception):
    """A command of the product ended otherwise than it should."""


@dataclass(frozen=True)
class Plan:
    """What an installation is made from.

    Attributes:
        directory: Its own, for settings, secrets, records and logs.
        database_url: An empty database.
        key: Its ring's key in OpenBao.
        clock: Its durations.
        program: The module that is run as ``authz-server``.
        tick_seconds: How often the rotator ticks.
        nodes: How many servers.
    """

    directory: Path
    database_url: str
    key: VaultKey
    clock: FastClock
    program: str = PRODUCT
    tick_seconds: float = 0.4
    nodes: int = 3

    def settings(self) -> dict[str, Any]:
        """Return what the settings of every node say beyond the ports."""
        clock = self.clock
        return {
            "issuer": ISSUER,
            "environment": "production",
            "database": {"several_nodes": True},
            "clients": {"secret_pepper": {"file": str(self.directory / "secrets" / "pepper")}},
            "keys": {
                # Nothing is encrypted here: the private keys never leave OpenBao.
                "key_encryption_key": None,
                "default_ring": RING,
                "jwks_maximum_age_seconds": clock.jwks_maximum_age_seconds,
                "refresh_interval_seconds": clock.refresh_seconds,
                "snapshot_lifetime_seconds": clock.snapshot_seconds,
                "clock_tolerance_seconds": clock.clock_tolerance_seconds,
                "rings": {
                    RING: {
                        "algorithm": "ES256",
                        "backend": self.key.uri,
                        "drive": "rotator",
                        "prepublication_seconds": clock.prepublication_seconds,
                        "rotation_interval_seconds": clock.rotation_seconds,
                    }
                },
                "vaults": {
                    "main": {
                        "addresses": [self.key.server.address],
                        "login": self.key.logins["server"],
                        "rotator_login": self.key.logins["rotator"],
                    }
                },
            },
            "tokens": {"default_lifetime_seconds": clock.token_seconds},
            "logging": {"level": "info"},
        }


class NodeProcess(LiveServer):
    """`authz-server serve`, by the program that the plan names."""

    def __init__(self, plan: Plan, number: int) -> None:
        directory = plan.directory / f"node-{number}"
        directory.mkdir()

        def write(server: dict[str, Any]) -> Path:
            # The verifiers fetch the JWKS here, and may keep it under this name.
            named = server | {"hosts": [f"127.0.0.1:{server['port']}"]}
            return write_settings(directory, plan.database_url, plan.settings() | {"server": named})

        super().__init__(write, directory)
        self.command = (sys.executable, "-m", plan.program)
        self.node = Node(f"node {number}", self.port)


@dataclass
class Installation:
    """An installation that runs.

    Attributes:
        plan: What it was made from.
        nodes: Its servers.
        callers: Who may ask them.
        services: Its parts in this process, to look on.
    """

    plan: Plan
    servers: tuple[NodeProcess, ...]
    callers: Callers
    services: Services
    started_processes: list[int] = field(default_factory=list)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The servers as their callers see them."""
        return tuple(server.node for server in self.servers)

    @property
    def jwks_urls(self) -> tuple[str, ...]:
        """Where each node publishes its keys."""
        return tuple(f"{server.base_url}/.well-known/jwks.json" for server in self.servers)

    def ring(self) -> RingSnapshot:
        """Return the ring as it is stored."""
        services = self.services
        (ring,) = services.key_store.load_rings(services.clock())
        return ring

    @property
    def record_files(self) -> tuple[Path, ...]:
        """Where each node writes its audit records."""
        return tuple(server.settings_path.with_name("audit.jsonl") for server in self.servers)

    def command(
        self, *words: str, as_person: bool = False, accepted: tuple[int, ...] = (0,)
    ) -> str:
        """Run a command of the product; return what it printed.

        Args:
            words: The command.
            as_person: With the token of the emergency role; else as the rotator.
            accepted: Which exit statuses are no failure.

        Raises:
            CommandFailedError: It failed.
        """
        token = {"VAULT_TOKEN": self.plan.key.emergency_token} if as_person else {}
        settings_path = self.servers[0].settings_path
        return run_command(self.plan, settings_path, *words, environment=token, accepted=accepted)


def run_command(
    plan: Plan,
    settings_path: Path,
    *words: str,
    environment: dict[str, str] | None = None,
    accepted: tuple[int, ...] = (0,),
) -> str:
    """Run a command of the product with those settings; return what it printed.

    Raises:
        CommandFailedError: It failed.
    """
    run = subprocess.run(
        [sys.executable, "-m", plan.program, *words, "--config", str(settings_path)],
        cwd=_ROOT,
        env=_environment() | (environment or {}),
        capture_output=True,
        text=True,
        timeout=_COMMAND_SECONDS,
        check=False,
    )
    if run.returncode not in accepted:
        raise CommandFailedError(f"authz-server {' '.join(words)}: {run.stdout}{run.stderr}")
    printed: str = run.stdout
    return printed


@contextmanager
def running_installation(plan: Plan) -> Iterator[Installation]:
    """Make the database's schema, the first keys and the callers; start nodes and rotator."""
    (plan.directory / "secrets").mkdir(parents=True)
    pepper = plan.directory / "secrets" / "pepper"
    pepper.touch(0o600)
    pepper.write_text(os.urandom(32).hex(), encoding="ascii")
    with ExitStack() as stack:
        servers = tuple(NodeProcess(plan, number + 1) for number in range(plan.nodes))
        first = servers[0].settings_path
        run_command(plan, first, "db", "upgrade")
        grant(plan.key, json.loads(run_command(plan, first, "keys", "policy", "--json")))
        run_command(plan, first, "keys", "init")
        services = stack.enter_context(operator_services(_settings(first)))
        callers = _make_callers(services)
        # A server ends with the thread that started it: these threads live as long as they do.
        starters = stack.enter_context(ThreadPoolExecutor(len(servers)))
        for server in servers:
            stack.callback(server.__exit__)
        list(starters.map(NodeProcess.start, servers))
        made = Installation(plan, servers, callers, services)
        stack.enter_context(_rotator(made))
        made.started_processes += [server.process_id for server in servers]
        yield made


@contextmanager
def _rotator(installation: Installation) -> Iterator[None]:
    """Run `keys tick --watch` as a process of its own, with the rotator's login."""
    plan = installation.plan
    words = ["keys", "tick", "--watch", str(plan.tick_seconds), "--quiet"]
    settings_path = installation.servers[0].settings_path
    with (plan.directory / "rotator.log").open("ab") as log:
        process = start_tied(
            [sys.executable, "-m", plan.program, *words, "--config", str(settings_path)],
            output=log,
            environment=_environment(),
            directory=_ROOT,
        )
    installation.started_processes.append(process.pid)
    try:
        yield
    finally:
        end_process(process)


def _settings(path: Path) -> Settings:
    return load_settings(path, {})


def _environment() -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name != "VAULT_TOKEN"}
    return environment | {"PYTHONPATH": str(_ROOT)}


def _make_callers(services: Services) -> Callers:
    with services.transaction() as session:
        services.scopes.import_catalogue(session, CATALOGUE, actor=ACTOR)
        services.clients.create_resource_server(
            session, actor=ACTOR, id="mapper", name="Mapper", identifier=AUDIENCE
        )
        owned = [each.name for each in CATALOGUE if each.name.startswith("mapper/")]
        services.scopes.assign(session, owned, "mapper", actor=ACTOR)
        services.clients.create_client(
            session, actor=ACTOR, id="ministry", name="Ministry", allowed_scopes=[SCOPE]
        )
        _, mapper_secret = services.clients.add_secret(session, "mapper", actor=ACTOR)
        _, ministry_secret = services.clients.add_secret(session, "ministry", actor=ACTOR)
    return Callers("ministry", ministry_secret, "mapper", mapper_secret, SCOPE)


def log_tails(directory: Path, lines: int = 8) -> Iterator[str]:
    """Yield the ends of all logs below ``directory``, for whoever looks into a failure."""
    for path in sorted(directory.rglob("*.log")):
        text = _lines(path)
        if text:
            yield "\n".join([f"-- {path.name}", *text[-lines:]])


def complaints(directory: Path) -> list[str]:
    """Return what servers and rotator complained of in their logs: each once, with how often."""
    told: Counter[str] = Counter()
    for path in directory.rglob("*.log"):
        told.update(filter(None, map(_complaint, _lines(path))))
    return [f"{what} ({number} times)" for what, number in sorted(told.items())]


def _complaint(line: str) -> str:
    """Return what is wrong by that line of a log, in its first words; empty: nothing."""
    if line.startswith(("ALARM", "NOT DONE", "Traceback")):
        return " ".join(line.split()[:2])
    try:
        said = json.loads(line)
    except ValueError:
        return ""
    is_record = isinstance(said, dict) and said.get("level") in {"warning", "error", "critical"}
    text = str(said.get("message", line)) if is_record else ""
    return "" if text.startswith(_OF_EVERY_START) else text.partition(": ")[0]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()
