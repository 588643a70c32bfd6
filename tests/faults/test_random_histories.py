"""Random acts of operators and random faults under load: what every answer must agree with.

Each seed is a history of FAULT_SECONDS; FAULT_SEEDS names the seeds, for example 1-20 or 7.
"""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from authz_server.database.schema import upgrade_database
from authz_server.settings import DatabaseSettings
from support.openbao import DevServer
from support.postgresql import PostgresServer
from support.random_operator import Operator
from support.random_site import RandomSite
from support.random_troubles import Engineer, clock_prefix
from support.secrets_watch import SecretsWatch
from support.tcp_proxy import TcpProxy
from support.vault_side import VaultEngines

SECONDS = float(os.environ.get("FAULT_SECONDS", "60"))
FIRST, _, LAST = os.environ.get("FAULT_SEEDS", "1-3").partition("-")
SEEDS = range(int(FIRST), int(LAST or FIRST) + 1)
RECOVERY_SECONDS = 40

pytestmark = pytest.mark.timeout(10 * SECONDS + 600)


@contextmanager
def running_site(dialect: str, directory: Path, seed: int) -> Iterator[tuple[RandomSite, Engineer]]:
    """Run a node on SQLite, or two on PostgreSQL, with keys in database, file, KV and transit."""
    chance = random.Random(f"troubles {seed}")
    with ExitStack() as stack:
        vault = stack.enter_context(DevServer())
        vault_proxy = stack.enter_context(TcpProxy(vault.port))
        side = VaultEngines(vault, directory, SecretsWatch(), drives_itself=True)
        side.prepare()
        login = {"login": side.login("server"), "rotator_login": side.login("rotator")}
        keys = {
            "vaults": {"main": {"addresses": [f"http://127.0.0.1:{vault_proxy.port}"], **login}}
        }
        rings = {
            "es256": {"algorithm": "ES256", "backend": "sql://"},
            "filed": {"algorithm": "EdDSA", "backend": f"file://{directory}/keys.json"},
            "kv": {"algorithm": "ES256", "backend": f"kv://{side.mount}-kv/kv"},
            "remote": {"algorithm": "ES384", "backend": f"transit://{side.mount}/remote"},
        }
        database: PostgresServer | None = None
        prefixes: tuple[tuple[str, ...], ...] = ((),)
        if dialect == "sqlite":
            url = f"sqlite:///{directory}/authz-server.sqlite"
        else:
            database = stack.enter_context(PostgresServer(durable=True))
            proxy = stack.enter_context(TcpProxy(database.port))
            url = database.create_database().replace(f":{database.port}", f":{proxy.port}")
            # Under libfaketime a process is slow: every second history is without it.
            prefixes = ((), clock_prefix(directory / "clock") if seed % 2 else ())
        upgrade_database(DatabaseSettings(url=url))
        site = RandomSite(directory, url, len(prefixes), 3, rings, prefixes, keys=keys)
        for server in site.servers:
            stack.enter_context(server)
        engineer = Engineer(site, chance)
        engineer.trouble_vault(side, vault_proxy)
        if database is not None:
            engineer.trouble_database(database, proxy)
            if prefixes[1]:
                engineer.trouble_clock(directory / "clock", 1)
        with engineer:
            yield site, engineer


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_history_can_be_true(dialect: str, seed: int, tmp_path: Path):
    """Case F67, Case E64, Case G75, Case J108."""
    with running_site(dialect, tmp_path, seed) as (site, engineer):
        operator = Operator(site, random.Random(f"operator {seed}"))
        with site.load(seed):
            operator.run(SECONDS)
            engineer.rest()
            await_recovery(site)
            time.sleep(3)
        print(dict(operator.done), dict(engineer.done))  # noqa: T201 - the history in short
        print(len(site.tokens), len(site.sights), site.verified, len(operator.failed))  # noqa: T201
        problems = site.judge()
        logs = "".join(server.log() for server in site.servers)
        act, output = site.command("audit", "verify")
        (tmp_path / "failed").write_text("\n".join(operator.failed))
    assert problems == [], "\n".join([*operator.failed, *problems[:20]])
    assert "Traceback" not in logs
    assert act.acknowledged, output
    require_recorded(site)


def await_recovery(site: RandomSite) -> None:
    """Return when every node is ready again, unaided."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    for server in site.servers:
        detail = "no answer to a probe"
        while not server.is_ready():
            assert time.monotonic() < deadline, detail
            # A node under libfaketime may answer late while it starts workers.
            with suppress(httpx.TransportError):
                detail = httpx.get(f"{server.health_url}/health/ready", timeout=10).text
            time.sleep(0.2)


def require_recorded(site: RandomSite) -> None:
    """Every token that a client got has its record."""
    records = [
        json.loads(line)
        for folder in [*site.folders, site.directory]
        for path in folder.glob("audit.jsonl*")
        for line in path.read_bytes().splitlines()
        # A process that was killed may leave an empty one.
        if line
    ]
    issued = Counter(record.get("jti") for record in records if record["event"] == "token.issued")
    assert max(issued.values()) == 1
    assert sum(issued.values()) >= len(site.tokens)
