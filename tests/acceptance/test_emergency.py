"""The commands of docs/emergency.md and of the move to a Vault, run as printed."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.documents import run_blocks, shell_blocks, with_values
from support.not_run import skip_as_not_run
from support.openbao import RaftServer
from support.openbao_process import find_binary
from support.ports import release_port, reserve_port
from support.source_tree import ROOT

EMERGENCY, MOVE = "docs/emergency.md", "docs/local-keys-to-a-vault.md"


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """Two free ports."""
    reserved = [reserve_port() for _ in range(2)]
    yield reserved
    for port in reserved:
        release_port(port)


def install(ports: list[int]) -> list[str]:
    """Return the blocks that make and start the installation of the README's default."""
    for program in ("bash", "curl"):
        if shutil.which(program) is None:
            skip_as_not_run("the commands of the documents", program)
    return [
        f"""\
authz-server init --issuer https://auth.example.org --import g2p-connect \\
    --port {ports[0]} --health-port {ports[1]} --trusted-proxy 127.0.0.1
""",
        f"""\
HEALTH_PORT={ports[1]}
authz-server serve >server.log 2>&1 &
SERVER=$!
curl -fs --retry 30 --retry-delay 1 --retry-connrefused \\
    "http://127.0.0.1:$HEALTH_PORT/health/ready"
""",
    ]


def register(ports: list[int]) -> list[str]:
    """Return the blocks that register the parties of the page, and get a token."""
    return [
        """\
authz-server resource-server create mapper --name Mapper --scope 'mapper/*' \\
    --identifier https://mapper.example.org --secret-output mapper-secret
authz-server client create ministry --name Ministry --scope mapper/link \\
    --secret-output ministry-secret
sleep 1.5
""",
        f"""\
curl -fsS http://127.0.0.1:{ports[0]}/oauth2/token -d grant_type=client_credentials \\
    -d client_id=ministry -d client_secret="$(cat ministry-secret)" -d scope=mapper/link \\
    | tee answer.json
TOKEN=$(sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/' answer.json)
""",
    ]


@pytest.mark.timeout(300)
def test_the_commands_of_the_emergency_page(ports: list[int], tmp_path: Path) -> None:
    """Case S263."""
    folder = tmp_path / "session"
    folder.mkdir()
    blocks = [*install(ports), *register(ports), *shell_blocks(EMERGENCY, dialect="sqlite")]
    printed = run_blocks(blocks, folder, os.environ, 280)
    told = dict(zip(blocks, printed, strict=True))

    def output(piece: str) -> str:
        return next(text for block, text in told.items() if piece in block)

    assert "is revoked" in output("token revoke")
    assert "is disabled. Its tokens issued until now are revoked" in output("disable ministry")
    assert "ministry is enabled" in output("secret add ministry")
    assert "ends at" in output("secret add mapper")
    assert "Nothing was changed" in output("--dry-run")
    assert "No token of it lives after" in output("--dry-run")
    assert "es256: done." in output('es256 --reason "INC-17: seen outside" --yes')
    assert "All tokens issued up to" in output("--before now")
    assert output("--all-versions").count(": done.") == 2
    assert "can be used" in output("config check")
    assert (folder / "keys.html").exists()


@pytest.mark.timeout(300)
def test_the_commands_that_move_local_keys_to_a_vault(ports: list[int], tmp_path: Path) -> None:
    """Case S264."""
    folder = tmp_path / "session"
    folder.mkdir()
    with RaftServer(audit=True) as server:
        path = f"{Path(find_binary()).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "HOME": str(tmp_path), "BAO_TOKEN": server.token}
        first, *others = shell_blocks(MOVE, dialect="sqlite")
        blocks = [
            *install(ports),
            with_values(first, {"VAULT_ADDR": server.address}),
            *others,
            f"""\
sleep 3
authz-server config check
curl -fsS http://127.0.0.1:{ports[0]}/.well-known/jwks.json
""",
        ]
        printed = run_blocks(blocks, folder, environment, 280)
    told = dict(zip(blocks, printed, strict=True))

    def output(piece: str) -> str:
        return next(text for block, text in told.items() if piece in block)

    assert "nothing else is permitted" in output("keys doctor")
    assert "signs instead" in output('--reason "CHG-4711"\n')
    # Four rings with a key that signs or is to sign, and one that stands by.
    assert printed[-1].count('"kid"') == 8


def test_every_reason_on_the_page_is_one_that_readiness_gives() -> None:
    page = (ROOT / EMERGENCY).read_text(encoding="utf-8")
    section = page.partition("\n## Nothing works\n")[2]
    rows = section.partition("| --- | --- |")[2].partition("\n\n")[0]
    named = set(
        re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in rows.split("\n")[1:]))
    )
    sources = (
        "authz_server/app.py",
        "authz_server/audit/notifier.py",
        "authz_server/cli/serve.py",
        "keys/ring.py",
    )
    given = "".join((ROOT / path).read_text(encoding="utf-8") for path in sources)
    assert len(named) >= 6
    for name in named:
        assert re.search(rf"[\"]{name}[:\"]", given), name
